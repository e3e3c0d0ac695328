/** Sessions that the user has selected, by their keys. */

import type { SessionAnalysis } from "../../../protocol/types";

export type Selection = ReadonlyMap<string, SessionAnalysis>;

/** A session's id is its own only within its agent, and no name has a NUL. */
export function keyOf({ agent, sessionId }: SessionAnalysis): string {
  return `${agent}\0${sessionId}`;
}

/** What is in a database, and imported originals, only OpenClaw may delete. */
export function isDeletable({ store, archivedAs }: SessionAnalysis): boolean {
  return store === "jsonl" && archivedAs !== "imported";
}
