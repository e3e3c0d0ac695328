/** An analysis by the command that suits the number of files: the eager one for a few, else the stream. */

import { callOn, errorText, type HostId } from "../sidecar/call";
import { Stream, type Run, type RunHandlers } from "../sidecar/stream";
import { SESSION_EVENTS, type SessionEventName } from "./sessionModel";

/** Up to so many files one answer has it all. */
export const EAGER_MAX_FILES = 100;

const FILE_EVENTS = ["session-files:chunk", "session-files:done", "sessions:cancelled", "sessions:error"] as const;

/** The analysis as a stream, of whatever size. */
export function streamAnalysis(
  hostId: HostId,
  params: { batchSize?: number },
  handlers: RunHandlers<SessionEventName>,
): Run {
  const open = () => callOn(hostId, "analyze_sessions_stream", params);
  return new Stream({ ...handlers, events: SESSION_EVENTS, open });
}

/** Lists files until there are too many for one answer, then begins the analysis. */
export class AnalysisRun implements Run {
  readonly #hostId: HostId;
  readonly #handlers: RunHandlers<SessionEventName>;
  readonly #list: Run;
  #stream: Run | null = null;
  #ended = false;

  constructor(hostId: HostId, handlers: RunHandlers<SessionEventName>) {
    this.#hostId = hostId;
    this.#handlers = handlers;
    this.#list = this.#newList();
  }

  /** What comes before the stream has nothing to show: its answer is passed over. */
  cancel(): void {
    if (this.#stream !== null) {
      this.#stream.cancel();
    } else if (!this.#ended) {
      this.close();
      this.#tellDone(0, 0, true);
    }
  }

  close(): void {
    this.#ended = true;
    this.#list.close();
    this.#stream?.close();
  }

  #newList(): Run {
    let few = true;
    const list = new Stream({
      events: FILE_EVENTS,
      open: () => callOn(this.#hostId, "list_session_files_stream", { batchSize: EAGER_MAX_FILES + 1 }),
      onEvent: ({ name, payload }) => {
        switch (name) {
          case "session-files:chunk":
            if (few && payload.totalFiles > EAGER_MAX_FILES) {
              few = false;
              list.cancel();
            }
            return false;
          case "sessions:error": // the analysis says what is wrong, in its own words
            few = false;
            return false;
          case "sessions:cancelled":
            return false;
          case "session-files:done":
            // Only the stream tells what couldn't be read.
            if (few && payload.failedItems === 0) void this.#ask();
            else this.#stream = streamAnalysis(this.#hostId, {}, this.#handlers);
            return true;
        }
      },
      onFailure: this.#handlers.onFailure,
    });
    return list;
  }

  async #ask(): Promise<void> {
    try {
      const agents = await callOn(this.#hostId, "analyze_sessions", {});
      if (this.#ended) return;
      let seq = 0;
      let totalSessions = 0;
      for (const agent of agents) {
        const payload = { ...agent, handleId: "", seq: seq++, agentFilesTotal: agent.totalFiles, done: true };
        this.#handlers.onEvent({ name: "sessions:chunk", payload });
        totalSessions += agent.totalFiles;
      }
      this.#tellDone(agents.length, totalSessions, false);
    } catch (error) {
      if (!this.#ended) this.#handlers.onFailure(errorText(error));
    }
  }

  #tellDone(totalAgents: number, totalSessions: number, cancelled: boolean): void {
    const counts = { totalAgents, totalSessions, failedItems: 0, failures: [] };
    this.#ended = true;
    this.#handlers.onEvent({
      name: "sessions:done",
      payload: { handleId: "", seq: totalAgents, cancelled, ...counts },
    });
  }
}
