import { useCallback, useState } from "react";
import { callOn, type HostId } from "../sidecar/call";
import { Stream } from "../sidecar/stream";
import { StreamStore, type StreamState } from "../sidecar/streamStore";
import { useStreamStore } from "../sidecar/useStreamStore";
import {
  BACKUP_EVENTS,
  BackupModel,
  RESTORE_EVENTS,
  VERIFY_EVENTS,
  type BackupEventName,
  type BackupView,
} from "./backupModel";

export type WorkName = "backup" | "restore" | "undo" | "verify";

/** What is done, or was done last; `undo` is a restore of what was before another. */
export type BackupWork = { what: "backup" } | { what: Exclude<WorkName, "backup">; backupName: string };

export interface BackupStream extends StreamState<BackupView> {
  work: BackupWork | null;
  /** Make a backup. It takes the place of what is being done, which is cancelled; so do the next two. */
  start: (options?: { includeSessions?: boolean }) => void;
  restore: (backupName: string, options?: { undo?: boolean; force?: boolean }) => void;
  verify: (backupName: string) => void;
  cancel: () => void;
}

/** Work on the backups of one machine, one at a time, which is cancelled when the component goes. */
export function useBackupStream(hostId: HostId): BackupStream {
  const [store, state] = useStreamStore(hostId, newStore);
  const [work, setWork] = useState<BackupWork | null>(null);
  const start = useCallback(
    (options: { includeSessions?: boolean } = {}) => {
      const open = () => callOn(hostId, "backup_before_upgrade_stream", options);
      setWork({ what: "backup" });
      store.start((handlers) => new Stream({ ...handlers, events: BACKUP_EVENTS, open }));
    },
    [store, hostId],
  );
  const restore = useCallback(
    (backupName: string, { undo = false, force = false } = {}) => {
      const open = () => callOn(hostId, "restore_from_backup_stream", { backupName, force });
      setWork({ what: undo ? "undo" : "restore", backupName });
      store.start((handlers) => new Stream({ ...handlers, events: RESTORE_EVENTS, open }));
    },
    [store, hostId],
  );
  const verify = useCallback(
    (backupName: string) => {
      const open = () => callOn(hostId, "verify_backup_stream", { backupName });
      setWork({ what: "verify", backupName });
      store.start((handlers) => new Stream({ ...handlers, events: VERIFY_EVENTS, open }));
    },
    [store, hostId],
  );
  return { ...state, work, start, restore, verify, cancel: store.cancel };
}

function newStore() {
  return new StreamStore<BackupEventName, BackupView, BackupModel>(() => new BackupModel());
}
