import type { ReactNode } from "react";
import { ErrorBoundary, type FallbackProps } from "react-error-boundary";
import { useWords } from "../i18n/LanguageContext";
import { errorText } from "../sidecar/call";
import { ErrorBox } from "./ErrorBox";

/** An error of the page's own takes the place of these children only: the rest is still there, and what runs goes on. */
export function Boundary({ children }: { children: ReactNode }) {
  return <ErrorBoundary FallbackComponent={Broken}>{children}</ErrorBoundary>;
}

function Broken({ error, resetErrorBoundary }: FallbackProps) {
  const { text } = useWords();
  return (
    <ErrorBox message={errorText(error)} title={text.broken}>
      <button type="button" className="button" onClick={resetErrorBoundary}>
        {text.retry}
      </button>
    </ErrorBox>
  );
}
