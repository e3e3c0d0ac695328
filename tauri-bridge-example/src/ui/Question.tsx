import { AlertDialog } from "radix-ui";
import type { ReactNode } from "react";
import { useWords } from "../i18n/LanguageContext";

interface Props {
  title: string;
  about: string;
  /** What the button says that does it. */
  accept: string;
  refuse?: string;
  danger?: boolean;
  children?: ReactNode;
  onAccept: () => void;
  onRefuse: () => void;
}

/** A question that has to be answered; Escape refuses, and so does who presses Enter at once. */
export function Question({ title, about, accept, refuse, danger = false, children, onAccept, onRefuse }: Props) {
  const { text } = useWords();
  return (
    <AlertDialog.Root
      open
      onOpenChange={(open) => {
        if (!open) onRefuse();
      }}
    >
      <AlertDialog.Portal>
        <AlertDialog.Overlay className="overlay" />
        <AlertDialog.Content className="dialog">
          <AlertDialog.Title>{title}</AlertDialog.Title>
          <AlertDialog.Description>{about}</AlertDialog.Description>
          {children}
          <div className="dialog-actions">
            <AlertDialog.Cancel className="button">{refuse ?? text.cancel}</AlertDialog.Cancel>
            {/* Not Radix's own: it would also close, which refuses. */}
            <button type="button" className={danger ? "button danger" : "button primary"} onClick={onAccept}>
              {accept}
            </button>
          </div>
        </AlertDialog.Content>
      </AlertDialog.Portal>
    </AlertDialog.Root>
  );
}
