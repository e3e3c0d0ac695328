/** An analysis as it arrives: the agents so far, with their sessions and counters. */

import type { Failure, SessionAnalysis, SessionsChunk } from "../../../protocol/types";
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

interface AgentSoFar {
  latest: SessionsChunk;
  sessions: SessionAnalysis[];
  /** Null if something has come since it was made. */
  view: AgentView | null;
}

export class SessionModel implements StreamModel<SessionEventName, SessionsView> {
  readonly #agents = new Map<string, AgentSoFar>();
  #error: string | null = null;
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
        this.#error = event.payload.error;
        return null;
      case "sessions:done": {
        const { cancelled, failedItems, failures } = event.payload;
        this.#failedItems = failedItems;
        this.#failures = failures;
        if (this.#error !== null) return { phase: "failed", error: this.#error };
        return { phase: cancelled ? "cancelled" : "done" };
      }
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
    const agent = this.#agents.get(chunk.agent);
    if (agent === undefined) {
      this.#agents.set(chunk.agent, { latest: chunk, sessions: [...chunk.sessions], view: null });
    } else {
      agent.latest = chunk;
      for (const session of chunk.sessions) agent.sessions.push(session);
      agent.view = null;
    }
  }
}

function viewOf({ latest, sessions }: AgentSoFar): AgentView {
  const { agent, totalFiles, totalSizeBytes, emptyCount, lowValueCount, valuableCount, agentFilesTotal, done } = latest;
  const counters = { totalFiles, totalSizeBytes, emptyCount, lowValueCount, valuableCount, agentFilesTotal };
  return { agent, ...counters, done, sessions: [...sessions] };
}
