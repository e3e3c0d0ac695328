/** Which sessions are shown, and in which order, while they arrive. */

import type { SessionAnalysis } from "../../../protocol/types";

export type Category = SessionAnalysis["category"];
export const CATEGORIES: readonly Category[] = ["valuable", "low_value", "empty"];

export type SortKey = "sessionId" | "agent" | "category" | "messageCount" | "sizeBytes" | "ageDays" | "model";

export interface SessionSort {
  readonly key: SortKey;
  readonly descending: boolean;
}

export interface SessionFilter {
  readonly categories: readonly Category[];
  readonly store: SessionAnalysis["store"] | null;
  readonly kind: SessionAnalysis["kind"] | null;
  /** A part of the id or of the model, whatever its case. */
  readonly text: string;
}

export const NO_FILTER: SessionFilter = { categories: CATEGORIES, store: null, kind: null, text: "" };

/**
 * Sorts what is new, and merges it with what it has: so a chunk costs a pass, not a sort of everything.
 *
 * What stays equal by the sort stays in the order of arrival.
 */
export class SessionOrder {
  readonly #compare: (one: SessionAnalysis, other: SessionAnalysis) => number;
  readonly #filter: SessionFilter;
  #last: SessionAnalysis | undefined;
  #known = 0;
  #rows: readonly SessionAnalysis[] = [];

  constructor(sort: SessionSort, filter: SessionFilter) {
    this.#compare = comparison(sort);
    this.#filter = filter;
  }

  /** `sessions` are those of the last call and more behind them, or others altogether. */
  rowsOf(sessions: readonly SessionAnalysis[]): readonly SessionAnalysis[] {
    // At its old place only if nothing before it went.
    if (this.#known > 0 && sessions[this.#known - 1] !== this.#last) {
      this.#known = 0;
      this.#rows = [];
    }
    const added: SessionAnalysis[] = [];
    for (let index = this.#known; index < sessions.length; index++) {
      if (isShown(sessions[index]!, this.#filter)) added.push(sessions[index]!);
    }
    this.#known = sessions.length;
    this.#last = sessions.at(-1);
    if (added.length > 0) this.#rows = merged(this.#rows, added.sort(this.#compare), this.#compare);
    return this.#rows;
  }
}

function merged<T>(one: readonly T[], other: readonly T[], compare: (one: T, other: T) => number): readonly T[] {
  if (one.length === 0) return other;
  const rows: T[] = [];
  let next = 0;
  for (const item of one) {
    while (next < other.length && compare(other[next]!, item) < 0) rows.push(other[next++]!);
    rows.push(item);
  }
  while (next < other.length) rows.push(other[next++]!);
  return rows;
}

function isShown(session: SessionAnalysis, { categories, store, kind, text }: SessionFilter): boolean {
  if (!categories.includes(session.category)) return false;
  if (store !== null && session.store !== store) return false;
  if (kind !== null && session.kind !== kind) return false;
  if (text === "") return true;
  const wanted = text.toLowerCase();
  return session.sessionId.toLowerCase().includes(wanted) || (session.model ?? "").toLowerCase().includes(wanted);
}

function comparison({ key, descending }: SessionSort): (one: SessionAnalysis, other: SessionAnalysis) => number {
  const sign = descending ? -1 : 1;
  if (key === "category") {
    return (one, other) => sign * (CATEGORIES.indexOf(one.category) - CATEGORIES.indexOf(other.category));
  }
  return (one, other) => {
    const [a, b] = [one[key] ?? "", other[key] ?? ""];
    return a < b ? -sign : a > b ? sign : 0;
  };
}
