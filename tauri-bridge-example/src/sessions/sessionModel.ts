/** An analysis as it arrives: the agents so far, with their sessions and counters. */

import type { ErrorKind, Failure, SessionAnalysis, SessionsChunk } from "../../../protocol/types";
import type { StreamEvent } from "../sidecar/stream";
import type { StreamEnd, StreamModel } from "../sidecar/streamStore";

export const SESSION_EVENTS = ["sessions:chunk", "sessions:cancelled", "sessions:error", "sessions:done"] as const;
export type SessionEventName = (typeof SESSION_EVENTS)[number];

/** `agentFilesTotal` transcripts are known of the agent; the other numbers are of those that have come. */
export interface AgentView extends Readonly<Omit<SessionsChunk, "handleId" | "seq" | "sessions">> {
  readonly sessions: readonly SessionAnalysis[];
}

export interface SessionsView {
  /** In the order of their arrival. */
  readonly agents: readonly AgentView[];
  readonly totalSessions: number;
  readonly totalSizeBytes: number;
  /** Items that couldn't be read, and the first of them; known at the end. */
  readonly failedItems: number;
  readonly failures: readonly Failure[];
}

/** A session that is deleted. */
export interface SessionName {
  agent: string;
  sessionId: string;
}

interface AgentSoFar {
  latest: Omit<SessionsChunk, "handleId" | "seq" | "sessions">;
  sessions: SessionAnalysis[];
  /** Null if something has come since it was made. */
  view: AgentView | null;
}

export class SessionModel implements StreamModel<SessionEventName, SessionsView> {
  readonly #agents = new Map<string, AgentSoFar>();
  /** Each text once: thousands of sessions have the same model, and each chunk a copy of its name. */
  readonly #texts = new Map<string, string>();
  #error: { error: string; kind: ErrorKind } | null = null;
  #failedItems = 0;
  #failures: readonly Failure[] = [];

  take(event: StreamEvent<SessionEventName>): StreamEnd | null {
    switch (event.name) {
      case "sessions:chunk":
        this.#add(event.payload);
        return null;
      case "sessions:cancelled": // the terminal says it too
        return null;
      case "sessions:error":
        this.#error = event.payload;
        return null;
      case "sessions:done": {
        const { cancelled, failedItems, failures } = event.payload;
        this.#failedItems = failedItems;
        this.#failures = failures;
        if (this.#error !== null) return { phase: "failed", error: this.#error.error, kind: this.#error.kind };
        return { phase: cancelled ? "cancelled" : "done" };
      }
    }
  }

  /** Sessions were deleted. Not while an analysis runs, whose counters would still have them. */
  remove(names: readonly SessionName[]): void {
    for (const [name, agent] of this.#agents) {
      const gone = new Set(names.filter((session) => session.agent === name).map(({ sessionId }) => sessionId));
      if (gone.size === 0) continue;
      const left: SessionAnalysis[] = [];
      const latest = { ...agent.latest };
      for (const session of agent.sessions) {
        if (!gone.has(session.sessionId)) {
          left.push(session);
          continue;
        }
        latest.totalFiles -= 1;
        latest.agentFilesTotal -= 1;
        latest.totalSizeBytes -= session.sizeBytes;
        latest[COUNTER_OF[session.category]] -= 1;
      }
      if (left.length > 0) this.#agents.set(name, { latest, sessions: left, view: null });
      else this.#agents.delete(name);
    }
  }

  view(): SessionsView {
    const agents = Array.from(this.#agents.values(), (agent) => (agent.view ??= viewOf(agent)));
    return {
      agents,
      totalSessions: agents.reduce((sum, agent) => sum + agent.totalFiles, 0),
      totalSizeBytes: agents.reduce((sum, agent) => sum + agent.totalSizeBytes, 0),
      failedItems: this.#failedItems,
      failures: this.#failures,
    };
  }

  #add(chunk: SessionsChunk): void {
    for (const session of chunk.sessions) {
      session.agent = chunk.agent;
      if (session.model !== null) session.model = this.#once(session.model);
    }
    const agent = this.#agents.get(chunk.agent);
    if (agent === undefined) {
      this.#agents.set(chunk.agent, { latest: chunk, sessions: [...chunk.sessions], view: null });
    } else {
      agent.latest = chunk;
      for (const session of chunk.sessions) agent.sessions.push(session);
      agent.view = null;
    }
  }

  #once(text: string): string {
    const known = this.#texts.get(text);
    if (known !== undefined) return known;
    this.#texts.set(text, text);
    return text;
  }
}

const COUNTER_OF = { empty: "emptyCount", low_value: "lowValueCount", valuable: "valuableCount" } as const;

function viewOf({ latest, sessions }: AgentSoFar): AgentView {
  const { agent, totalFiles, totalSizeBytes, emptyCount, lowValueCount, valuableCount, agentFilesTotal, done } = latest;
  const counters = { totalFiles, totalSizeBytes, emptyCount, lowValueCount, valuableCount, agentFilesTotal };
  return { agent, ...counters, done, sessions: [...sessions] };
}
