/** A backup as it is made: how far it is, and what became of it. */

import type { BackupInfo, WorkProgress } from "../../../protocol/types";
import type { StreamEvent } from "../sidecar/stream";
import type { StreamEnd, StreamModel } from "../sidecar/streamStore";

export const BACKUP_EVENTS = ["backup:progress", "backup:cancelled", "backup:error", "backup:done"] as const;
export type BackupEventName = (typeof BACKUP_EVENTS)[number];

export interface BackupView {
  readonly progress: Readonly<WorkProgress> | null;
  /** The snapshot, once it is made. */
  readonly info: Readonly<BackupInfo> | null;
}

export class BackupModel implements StreamModel<BackupEventName, BackupView> {
  #view: BackupView = { progress: null, info: null };
  #cancelled = false;

  take(event: StreamEvent<BackupEventName>): StreamEnd | null {
    switch (event.name) {
      case "backup:progress":
        this.#view = { ...this.#view, progress: event.payload };
        return null;
      case "backup:cancelled":
        this.#cancelled = true;
        return null;
      case "backup:error":
        return this.#cancelled ? { phase: "cancelled" } : { phase: "failed", error: event.payload.error };
      case "backup:done":
        this.#view = { ...this.#view, info: event.payload.info };
        return { phase: "done" };
    }
  }

  view(): BackupView {
    return this.#view;
  }
}
