/** The far side of `@tauri-apps/api` in a test: it sees each command and listener, and tells events. */

import { clearMocks, mockIPC } from "@tauri-apps/api/mocks";
import type { Notifications } from "../../../protocol/types";

export interface Call {
  method: string;
  params: Record<string, unknown>;
}

type Answer = (call: Call) => unknown;

export class Backend {
  /** All commands so far, without those of the event plugin. */
  readonly calls: Call[] = [];
  readonly #listeners = new Map<number, string>();
  #answer: Answer;

  constructor(answer: Answer) {
    this.#answer = answer;
    mockIPC((method, args) => this.#take(method, args as Record<string, unknown>));
  }

  get answer(): Answer {
    return this.#answer;
  }

  answerWith(answer: Answer): void {
    this.#answer = answer;
  }

  /** The names of events that are listened to. */
  get listening(): string[] {
    return [...this.#listeners.values()].sort();
  }

  get cancelled(): unknown[] {
    return this.calls.filter(({ method }) => method === "cancel_stream").map(({ params }) => params["handleId"]);
  }

  emit<N extends keyof Notifications>(event: N, payload: Partial<Notifications[N]>): void {
    for (const [id, name] of this.#listeners) {
      if (name === event) internals().runCallback(id, { event, id, payload });
    }
  }

  #take(method: string, args: Record<string, unknown>): unknown {
    if (method === "plugin:event|listen") {
      const id = args["handler"] as number;
      this.#listeners.set(id, args["event"] as string);
      return id;
    }
    if (method === "plugin:event|unlisten") {
      this.#listeners.delete(args["eventId"] as number);
      return undefined;
    }
    const call = { method, params: args };
    this.calls.push(call);
    return this.#answer(call);
  }
}

export const removeBackend = clearMocks;

function internals(): { runCallback: (id: number, data: unknown) => void } {
  return (window as unknown as { __TAURI_INTERNALS__: ReturnType<typeof internals> }).__TAURI_INTERNALS__;
}
