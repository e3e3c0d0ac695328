import { useCallback } from "react";
import { callOn, type HostId } from "../sidecar/call";
import { useAnswer } from "../sidecar/useAnswer";
import { count, size } from "../format";
import { useBackupStream, type BackupStream } from "./useBackupStream";

/** Makes a backup of one machine, and lists those that there are. */
export function BackupPanel({ hostId }: { hostId: HostId }) {
  const stream = useBackupStream(hostId);
  const { phase, error } = stream;
  const { progress, info } = stream.view;
  const running = phase === "running" || phase === "cancelling";
  return (
    <section aria-labelledby="backups-title" aria-busy={running}>
      <h2 id="backups-title">Backups</h2>
      <p className="actions">
        <button
          type="button"
          disabled={running}
          onClick={() => {
            stream.start();
          }}
        >
          Back up
        </button>
        <button type="button" onClick={stream.cancel} disabled={phase !== "running"}>
          Cancel
        </button>
        <span role="status" data-phase={phase}>
          {statusOf(stream)}
        </span>
      </p>
      {running && (
        <progress
          aria-label="Bytes copied"
          // Without a value it says that it isn't known yet how much there is.
          {...(progress?.bytesTotal ? { value: progress.bytesCopied, max: progress.bytesTotal } : {})}
        />
      )}
      {error !== null && <p role="alert">{error}</p>}
      {/* A new snapshot has a new name, and so the list is asked for anew. */}
      <BackupList hostId={hostId} latest={info?.name ?? null} />
    </section>
  );
}

function BackupList({ hostId, latest }: { hostId: HostId; latest: string | null }) {
  const list = useAnswer(
    // eslint-disable-next-line react-hooks/exhaustive-deps -- a new snapshot makes it another question
    useCallback(() => callOn(hostId, "list_backups", {}), [hostId, latest]),
  );
  return (
    <>
      {list.error !== null && <p role="alert">{list.error}</p>}
      {list.value?.length === 0 && <p>There is no backup yet.</p>}
      <ul className="backups" aria-label="Backups">
        {list.value?.map((backup) => (
          <li key={backup.name}>
            <code>{backup.name}</code> {size(backup.sizeBytes)}, {backup.status}
          </li>
        ))}
      </ul>
    </>
  );
}

function statusOf({ phase, view: { progress, info } }: BackupStream): string {
  switch (phase) {
    case "idle":
      return "";
    case "running":
      if (progress === null || progress.phase === "snapshot") return "Counting files";
      return (
        `Copying: ${count(progress.filesCopied)} of ${count(progress.filesTotal)} files, ` +
        `${size(progress.bytesCopied)} of ${size(progress.bytesTotal)}`
      );
    case "cancelling":
      return "Cancelling";
    case "cancelled":
      return "Cancelled: nothing is left of it";
    case "done":
      return `Done: ${info?.name ?? ""}, ${size(info?.sizeBytes ?? 0)}, ${info?.status ?? ""}`;
    case "failed":
      return "There is no backup";
  }
}
