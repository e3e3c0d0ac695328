import type { Failure } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";

export function FailureList({ failures, failedItems }: { failures: readonly Failure[]; failedItems: number }) {
  const { text, count } = useWords();
  return (
    <ul className="failure-list">
      {failures.map(({ path, error }) => (
        <li key={path}>
          <code>{path}</code>: {error}
        </li>
      ))}
      {failedItems > failures.length && <li>{text.more(count(failedItems - failures.length))}</li>}
    </ul>
  );
}
