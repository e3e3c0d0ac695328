/** A backup, a restore or a check as it is done: how far it is, and what became of it. */

import type { BackupInfo, Failure, WorkError, WorkProgress } from "../../../protocol/types";
import type { StreamEvent } from "../sidecar/stream";
import type { StreamEnd, StreamModel } from "../sidecar/streamStore";

export const BACKUP_EVENTS = ["backup:progress", "backup:cancelled", "backup:error", "backup:done"] as const;
export const RESTORE_EVENTS = ["restore:progress", "restore:cancelled", "restore:error", "restore:done"] as const;
export const VERIFY_EVENTS = ["verify:progress", "verify:cancelled", "verify:error", "verify:done"] as const;
export type BackupEventName =
  (typeof BACKUP_EVENTS)[number] | (typeof RESTORE_EVENTS)[number] | (typeof VERIFY_EVENTS)[number];

export interface BackupView {
  readonly progress: Readonly<WorkProgress> | null;
  /** The snapshot, once it is made, restored or checked. */
  readonly info: Readonly<BackupInfo> | null;
  /** The snapshot of what was there before a restore. */
  readonly previous: Readonly<BackupInfo> | null;
  /** What differs in a damaged snapshot, and who uses what would be replaced. */
  readonly failures: readonly Failure[];
  readonly failedItems: number;
  readonly users: readonly string[];
}

const NOTHING: BackupView = { progress: null, info: null, previous: null, failures: [], failedItems: 0, users: [] };

export class BackupModel implements StreamModel<BackupEventName, BackupView> {
  #view = NOTHING;
  #cancelled = false;

  take(event: StreamEvent<BackupEventName>): StreamEnd | null {
    switch (event.name) {
      case "backup:progress":
      case "restore:progress":
      case "verify:progress":
        this.#view = { ...this.#view, progress: event.payload };
        return null;
      case "backup:cancelled":
      case "restore:cancelled":
      case "verify:cancelled":
        this.#cancelled = true;
        return null;
      case "backup:error":
      case "restore:error":
      case "verify:error":
        return this.#cancelled ? { phase: "cancelled" } : this.#failed(event.payload);
      case "restore:done":
        this.#view = { ...this.#view, info: event.payload.info, previous: event.payload.previous };
        return { phase: "done" };
      case "backup:done":
      case "verify:done":
        this.#view = { ...this.#view, info: event.payload.info };
        return { phase: "done" };
    }
  }

  view(): BackupView {
    return this.#view;
  }

  #failed({ error, kind, failures = [], failedItems = 0, users = [] }: WorkError): StreamEnd {
    this.#view = { ...this.#view, failures, failedItems, users };
    return { phase: "failed", error, kind };
  }
}
