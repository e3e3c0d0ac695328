import { CircleCheck } from "lucide-react";
import type { ReactNode } from "react";
import { useWords } from "../i18n/LanguageContext";
import { ErrorBox } from "../ui/ErrorBox";
import { FailureList } from "./FailureList";
import type { BackupStream } from "./useBackupStream";

interface Props {
  stream: BackupStream;
  /** The time of a backup, by which people know it. */
  nameOf: (backupName: string) => string;
  includeSessions: boolean;
  onIncludeSessions: (include: boolean) => void;
  onBackUp: () => void;
  /** What can be done after a failure. */
  children: ReactNode;
}

/** Begins a backup, shows how far the work is, and what came of it. */
export function WorkBar({ stream, nameOf, includeSessions, onIncludeSessions, onBackUp, children }: Props) {
  const { text, size, time } = useWords();
  const { phase, view, work, error, kind } = stream;
  const running = phase === "running" || phase === "cancelling";
  const words = work && text.work[work.what];
  return (
    <>
      <div className="bar-row">
        <button
          type="button"
          className={running ? "button wide" : "button primary wide"}
          disabled={phase === "cancelling"}
          onClick={running ? stream.cancel : onBackUp}
        >
          {running ? text.cancel : text.backUp}
        </button>
        <label className="checkbox">
          <input
            type="checkbox"
            disabled={running}
            checked={includeSessions}
            onChange={({ target }) => {
              onIncludeSessions(target.checked);
            }}
          />
          {text.includeSessions}
        </label>
        <WorkStatus stream={stream} />
      </div>
      {/* A place of its own, whether something is under way or not. */}
      <div className="progress-place">
        {running && (
          <progress
            aria-label={words?.running ?? text.working}
            // Without a value it says that it isn't known yet how much there is.
            {...(view.progress?.bytesTotal ? { value: view.progress.bytesCopied, max: view.progress.bytesTotal } : {})}
          />
        )}
      </div>
      {phase === "done" && work !== null && view.info !== null && (
        <div className="notice done" role="status">
          <CircleCheck aria-hidden size={16} />
          <div className="notice-body">
            <p>{text.workDone[work.what](time(view.info.createdAt), size(view.info.sizeBytes))}</p>
            {view.previous !== null && (
              <p>
                {text.undoAbout(time(view.previous.createdAt))}{" "}
                <button
                  type="button"
                  className="button small"
                  onClick={() => {
                    stream.restore(view.previous!.name, { undo: true });
                  }}
                >
                  {text.undo}
                </button>
              </p>
            )}
          </div>
        </div>
      )}
      {phase === "failed" && error !== null && (
        <ErrorBox
          message={error}
          kind={kind}
          title={[words?.failed, work && "backupName" in work ? nameOf(work.backupName) : ""]
            .filter(Boolean)
            .join(": ")}
        >
          {view.failures.length > 0 && <FailureList failures={view.failures} failedItems={view.failedItems} />}
          {view.users.length > 0 && (
            <ul className="failure-list">
              {view.users.map((user) => (
                <li key={user}>{user}</li>
              ))}
            </ul>
          )}
          {children}
        </ErrorBox>
      )}
      <span className="sr-only" role="status">
        {running && words?.running}
        {phase === "cancelled" && words?.cancelled}
      </span>
    </>
  );
}

function WorkStatus({ stream: { phase, work, view } }: { stream: BackupStream }) {
  const { text, count, size } = useWords();
  const words = work && text.work[work.what];
  const { progress } = view;
  let said = "";
  if (phase === "cancelling") said = text.phase.cancelling;
  else if (phase === "cancelled") said = words?.cancelled ?? "";
  else if (phase === "running") {
    said = `${words?.running ?? ""}: ${
      progress === null || progress.phase === "snapshot"
        ? text.phases.snapshot
        : text.progress(
            count(progress.filesCopied),
            count(progress.filesTotal),
            size(progress.bytesCopied),
            size(progress.bytesTotal),
          )
    }`;
  }
  return (
    <span className="status" data-phase={phase} data-work={work?.what}>
      {said}
    </span>
  );
}
