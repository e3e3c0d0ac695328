import { describe, expect, it } from "vitest";
import type { SessionAnalysis } from "../../../protocol/types";
import { CATEGORIES, NO_FILTER, SessionOrder, type SortKey } from "../../src/sessions/sessionOrder";

let seed = 1;

/** The same numbers in each run. */
function random(below: number): number {
  seed = (seed * 48_271) % 2_147_483_647;
  return seed % below;
}

function sessionsOf(count: number): SessionAnalysis[] {
  return Array.from(
    { length: count },
    (_, index) =>
      ({
        agent: `agent-${String(random(3))}`,
        sessionId: `s-${String(random(1_000))}-${String(index)}`,
        category: CATEGORIES[random(3)],
        kind: random(4) === 0 ? "archive" : "sessions",
        store: random(2) === 0 ? "jsonl" : "sqlite",
        messageCount: random(5),
        sizeBytes: random(50),
        ageDays: random(100) / 10,
        model: random(3) === 0 ? null : `model-${String(random(4))}`,
      }) as SessionAnalysis,
  );
}

describe("what arrives in pieces", () => {
  it.each(["sessionId", "agent", "category", "messageCount", "sizeBytes", "ageDays", "model"] as SortKey[])(
    "is in the same order as all at once, by %s",
    (key) => {
      const sessions = sessionsOf(500);
      const filter = { ...NO_FILTER, store: "jsonl" as const, categories: CATEGORIES.slice(1), text: "S-1" };
      for (const descending of [false, true]) {
        const order = new SessionOrder({ key, descending }, filter);
        for (let known = 0; known < sessions.length; known += random(60)) order.rowsOf(sessions.slice(0, known));
        const wanted = sessions.filter(
          ({ store, category, sessionId }) =>
            store === "jsonl" && category !== "valuable" && sessionId.startsWith("s-1"),
        );
        const value = (session: SessionAnalysis) =>
          key === "category" ? CATEGORIES.indexOf(session.category) : (session[key] ?? "");
        wanted.sort((one, other) => {
          const [a, b] = [value(one), value(other)];
          return (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1);
        });
        expect(wanted.length).toBeGreaterThan(10);
        expect(order.rowsOf(sessions)).toEqual(wanted);
      }
    },
  );

  it("is the same rows if nothing came, so that nothing is rendered", () => {
    const sessions = sessionsOf(20);
    const order = new SessionOrder({ key: "sizeBytes", descending: false }, NO_FILTER);
    expect(order.rowsOf([...sessions])).toBe(order.rowsOf([...sessions]));
  });
});

it("what was deleted, and what another analysis found, is begun anew", () => {
  const sessions = sessionsOf(100);
  const order = new SessionOrder({ key: "sessionId", descending: false }, NO_FILTER);
  order.rowsOf(sessions);
  const sorted = (those: SessionAnalysis[]) =>
    [...those].sort((one, other) => (one.sessionId < other.sessionId ? -1 : 1));
  const left = sessions.filter((_, index) => index % 7 !== 3);
  expect(order.rowsOf(left)).toEqual(sorted(left));
  const fewer = sessionsOf(300);
  expect(order.rowsOf(fewer)).toEqual(sorted(fewer));
  expect(order.rowsOf([])).toEqual([]);
});
