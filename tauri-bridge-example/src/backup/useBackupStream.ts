import { useCallback } from "react";
import { callOn, type HostId } from "../sidecar/call";
import { StreamStore, type StreamState } from "../sidecar/streamStore";
import { useStreamStore } from "../sidecar/useStreamStore";
import { BACKUP_EVENTS, BackupModel, type BackupView } from "./backupModel";

export interface BackupStream extends StreamState<BackupView> {
  /** Make a backup; one that is being made is cancelled. */
  start: (options?: { includeSessions?: boolean }) => void;
  cancel: () => void;
}

/** A backup of one machine, which is cancelled when the component goes. */
export function useBackupStream(hostId: HostId): BackupStream {
  const [store, state] = useStreamStore(hostId, newStore);
  const start = useCallback(
    (options: { includeSessions?: boolean } = {}) => {
      store.start(() => callOn(hostId, "backup_before_upgrade_stream", options));
    },
    [store, hostId],
  );
  return { ...state, start, cancel: store.cancel };
}

function newStore() {
  return new StreamStore(BACKUP_EVENTS, () => new BackupModel());
}
