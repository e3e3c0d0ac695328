import { CircleAlert } from "lucide-react";
import type { ReactNode } from "react";
import type { ErrorKind } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";
import { wordFor } from "../i18n/wordFor";
import { errorKind } from "../sidecar/errorKind";

interface Props {
  /** As the sidecar said it. */
  message: string;
  /** Without it, it is found out by the words of the message. */
  kind?: ErrorKind | null;
  title?: string;
  /** What else there is to say, and what can be done. */
  children?: ReactNode;
}

/** What went wrong and what helps, in the user's words; below, what the sidecar said. */
export function ErrorBox({ message, kind, title, children }: Props) {
  const { text } = useWords();
  const found = kind ?? errorKind(message);
  return (
    <div role="alert" className="notice error" data-kind={found}>
      <CircleAlert aria-hidden size={16} />
      <div className="notice-body">
        <p>
          {title !== undefined && <strong>{title}. </strong>}
          {(found !== null && wordFor(text.errors, found)) || text.unknownError}
        </p>
        <p className="said" title={text.whatItSaid}>
          {message}
        </p>
        {children}
      </div>
    </div>
  );
}
