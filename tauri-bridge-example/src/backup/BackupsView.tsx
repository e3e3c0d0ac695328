import { ShieldCheck, ShieldX, Trash2 } from "lucide-react";
import { useCallback, useState } from "react";
import type { BackupInfo } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";
import { callOn, errorText, type HostId } from "../sidecar/call";
import { useAnswer } from "../sidecar/useAnswer";
import { ErrorBox } from "../ui/ErrorBox";
import { Question } from "../ui/Question";
import { FailureList } from "./FailureList";
import { WorkBar } from "./WorkBar";
import type { BackupStream } from "./useBackupStream";

type Asked = { what: "restore" | "force" | "delete"; backup: BackupInfo } | null;

/** The backups of one machine: made, verified, restored, undone and deleted here. */
export function BackupsView({ hostId, stream }: { hostId: HostId; stream: BackupStream }) {
  const { text, time } = useWords();
  const { phase, view, work } = stream;
  const running = phase === "running" || phase === "cancelling";
  const [deletions, setDeletions] = useState(0);
  const [deleteError, setDeleteError] = useState<string | null>(null);
  const [asked, setAsked] = useState<Asked>(null);
  const [includeSessions, setIncludeSessions] = useState(true);
  // What is done makes a new snapshot or a new state of one, so the list is asked for anew.
  const list = useAnswer(
    // eslint-disable-next-line react-hooks/exhaustive-deps -- it is another question then
    useCallback(() => callOn(hostId, "list_backups", {}), [hostId, view.info, view.previous, deletions]),
  );

  async function remove(backupName: string) {
    setDeleteError(null);
    try {
      await callOn(hostId, "delete_backup", { backupName });
    } catch (error) {
      setDeleteError(errorText(error));
    }
    setDeletions((before) => before + 1);
  }

  function accept({ what, backup }: NonNullable<Asked>) {
    setAsked(null);
    if (what === "delete") void remove(backup.name);
    else stream.restore(backup.name, { force: what === "force" });
  }
  const nameOf = (name: string) => {
    const known = list.value?.find((backup) => backup.name === name);
    return known === undefined ? name : time(known.createdAt);
  };
  const restored = work?.what === "restore" && phase === "failed" && stream.kind === "target_in_use" ? work : null;
  const inUse = list.value?.find(({ name }) => name === restored?.backupName);
  return (
    <section className="backups-view" aria-labelledby="backups-title" aria-busy={running}>
      <h2 id="backups-title" className="sr-only">
        {text.views.backups}
      </h2>
      <p className="muted">{text.backupsAbout}</p>
      <WorkBar
        stream={stream}
        nameOf={nameOf}
        onBackUp={() => {
          stream.start({ includeSessions });
        }}
        includeSessions={includeSessions}
        onIncludeSessions={setIncludeSessions}
      >
        {inUse !== undefined && (
          <button
            type="button"
            className="button danger"
            onClick={() => {
              setAsked({ what: "force", backup: inUse });
            }}
          >
            {text.restoreAnyway}
          </button>
        )}
      </WorkBar>
      {list.error !== null && <ErrorBox message={list.error} />}
      {deleteError !== null && <ErrorBox message={deleteError} />}
      {list.value?.length === 0 && <p className="empty">{text.noBackup}</p>}
      {list.value !== null && list.value.length > 0 && (
        <table className="backups" aria-label={text.backupList}>
          <thead>
            <tr>
              <th scope="col">{text.backupColumns.createdAt}</th>
              <th scope="col" className="number">
                {text.backupColumns.sizeBytes}
              </th>
              <th scope="col">{text.backupColumns.status}</th>
              <th scope="col">
                <span className="sr-only">{text.backupColumns.actions}</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {list.value.map((backup) => (
              <BackupRow
                key={backup.name}
                backup={backup}
                stream={stream}
                running={running}
                onAsk={(what) => {
                  setAsked({ what, backup });
                }}
              />
            ))}
          </tbody>
        </table>
      )}
      {asked !== null && (
        <Question
          danger={asked.what !== "restore"}
          title={(asked.what === "delete" ? text.deleteBackupQuestion : text.restoreQuestion)(
            time(asked.backup.createdAt),
          )}
          about={asked.what === "delete" ? text.deleteBackupAbout : text.restoreAbout}
          accept={{ restore: text.restoreNow, force: text.restoreAnyway, delete: text.delete }[asked.what]}
          onAccept={() => {
            accept(asked);
          }}
          onRefuse={() => {
            setAsked(null);
          }}
        />
      )}
    </section>
  );
}

interface RowProps {
  backup: BackupInfo;
  stream: BackupStream;
  running: boolean;
  onAsk: (what: "restore" | "delete") => void;
}

function BackupRow({ backup, stream, running, onAsk }: RowProps) {
  const { text, count, size, time } = useWords();
  const { work, phase, kind } = stream;
  const isLast = work !== null && work.what !== "backup" && work.backupName === backup.name;
  const verified = isLast && work.what === "verify" && phase === "done";
  const damaged = isLast && phase === "failed" && kind === "backup_damaged";
  return (
    <tr data-backup={backup.name} data-status={backup.status}>
      <th scope="row">
        {time(backup.createdAt)}
        <code className="muted">{backup.name}</code>
      </th>
      <td className="number">{size(backup.sizeBytes)}</td>
      <td>
        <span className="mark" data-status={backup.status}>
          {text.backupStatus[backup.status]}
        </span>
        {verified && (
          <span className="mark good">
            <ShieldCheck aria-hidden size={12} /> {text.verifiedOk}
          </span>
        )}
        {damaged && (
          <span className="mark bad">
            <ShieldX aria-hidden size={12} /> {text.verifiedDamaged}
          </span>
        )}
        {backup.failedItems > 0 && (
          <details>
            <summary>{text.backupFailures(count(backup.failedItems))}</summary>
            <FailureList failures={backup.failures} failedItems={backup.failedItems} />
          </details>
        )}
      </td>
      <td className="row-actions">
        <button
          type="button"
          className="button small"
          disabled={running || backup.status === "unverified"}
          onClick={() => {
            stream.verify(backup.name);
          }}
        >
          {text.verify}
        </button>
        <button
          type="button"
          className="button small"
          disabled={running}
          onClick={() => {
            onAsk("restore");
          }}
        >
          {text.restore}
        </button>
        <button
          type="button"
          className="icon-button"
          disabled={running}
          aria-label={text.deleteBackup(time(backup.createdAt))}
          title={text.delete}
          onClick={() => {
            onAsk("delete");
          }}
        >
          <Trash2 aria-hidden size={16} />
        </button>
      </td>
    </tr>
  );
}
