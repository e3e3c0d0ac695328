/** One run of one `…_stream` command: its listeners, its handle and the order of its events. */

import { listen, type UnlistenFn } from "@tauri-apps/api/event";
import type { Notifications } from "../../../protocol/types";
import { call, errorText } from "./call";

export type EventName = keyof Notifications;

/** An event as a union that its `name` tells apart. */
export type StreamEvent<N extends EventName> = { [K in N]: { name: K; payload: Notifications[K] } }[N];

/** How many events may wait for the reply that says whose they are. */
export const MAX_EARLY_EVENTS = 1_000;

/** Work that sends events until it has ended. */
export interface Run {
  /** Ask for the end. The last event comes as always. */
  cancel: () => void;
  /** Cancel, and hand over nothing more. */
  close: () => void;
}

export interface RunHandlers<N extends EventName> {
  /** Takes the stream's events, in their order and none twice; true after the terminal. */
  onEvent: (event: StreamEvent<N>) => boolean;
  /** The stream didn't start, or an event of it is missing. No event follows. */
  onFailure: (error: string) => void;
}

export interface StreamHandlers<N extends EventName> extends RunHandlers<N> {
  /** Every name under which the stream sends something. */
  events: readonly N[];
  /** Asks for the stream; resolves with its handle. */
  open: () => Promise<string>;
}

/**
 * Starts at once, and ends with its terminal, a failure or `close`: then its listeners are gone.
 *
 * It listens before it asks, and keeps what comes before its handle is known. The bridge sees to that too, but it costs
 * little, and without a bridge that does the end of a short stream would be lost.
 */
export class Stream<N extends EventName> implements Run {
  readonly #handlers: StreamHandlers<N>;
  readonly #unlisten: UnlistenFn[] = [];
  readonly #early: StreamEvent<N>[] = [];
  #tooManyEarly = false;
  #handleId: string | null = null;
  #nextSeq = 0;
  #cancelled = false;
  #ended = false;

  constructor(handlers: StreamHandlers<N>) {
    this.#handlers = handlers;
    void this.#run();
  }

  /** Ask for the end. The terminal comes as always, and says whether the stream was cancelled. */
  cancel(): void {
    this.#cancelled = true;
    if (this.#handleId !== null && !this.#ended) cancelStream(this.#handleId);
  }

  /** Cancel, and hand over nothing more, not even the terminal. */
  close(): void {
    if (this.#ended) return;
    this.cancel();
    this.#end();
  }

  async #run(): Promise<void> {
    try {
      await Promise.all(this.#handlers.events.map((name) => this.#listen(name)));
      if (this.#ended) return;
      this.#handleId = await this.#handlers.open();
    } catch (error) {
      this.#fail(errorText(error));
      return;
    }
    if (this.#cancelled) cancelStream(this.#handleId);
    for (const event of this.#early.splice(0)) this.#take(event);
    if (this.#tooManyEarly) this.#fail("too many events came before the handle of the stream");
  }

  async #listen(name: N): Promise<void> {
    const unlisten = await listen<Notifications[N]>(name, ({ payload }) => {
      this.#take({ name, payload });
    });
    if (this.#ended) unlisten();
    else this.#unlisten.push(unlisten);
  }

  #take(event: StreamEvent<N>): void {
    const { handleId, seq } = event.payload;
    if (this.#ended) return;
    if (this.#handleId === null) {
      if (this.#early.length < MAX_EARLY_EVENTS) this.#early.push(event);
      else this.#tooManyEarly = true;
    } else if (handleId === this.#handleId) {
      if (seq !== this.#nextSeq) {
        this.#fail(`event ${String(this.#nextSeq)} of the stream is missing: ${String(seq)} came`);
        return;
      }
      this.#nextSeq += 1;
      if (this.#handlers.onEvent(event)) this.#end();
    }
  }

  #fail(error: string): void {
    if (this.#ended) return;
    this.close();
    this.#handlers.onFailure(error);
  }

  #end(): void {
    this.#ended = true;
    this.#early.length = 0;
    for (const unlisten of this.#unlisten.splice(0)) unlisten();
  }
}

function cancelStream(handleId: string): void {
  // A rejection means that the sidecar is gone, and the stream with it.
  call("cancel_stream", { handleId }).catch(() => false);
}
