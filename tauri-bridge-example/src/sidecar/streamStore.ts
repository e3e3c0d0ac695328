/** What a stream has sent so far, as a store that React can read. */

import { Stream, type EventName, type StreamEvent } from "./stream";

/** Views are made at most once in this time, however many events come. */
export const PUBLISH_EVERY_MS = 50;

export type StreamEnd = { phase: "done" } | { phase: "cancelled" } | { phase: "failed"; error: string };

/** Gathers the events of one run. What it keeps is all that is kept of them: nothing waits to be shown. */
export interface StreamModel<N extends EventName, View> {
  /** How the stream ended, if this was its terminal. */
  take(event: StreamEvent<N>): StreamEnd | null;
  /** What there is now. It doesn't change later, and parts of it that are equal are identical. */
  view(): View;
}

export interface StreamState<View> {
  phase: "idle" | "running" | "cancelling" | "done" | "cancelled" | "failed";
  error: string | null;
  view: View;
}

/** Runs one stream at a time. It can be stopped and started any number of times. */
export class StreamStore<N extends EventName, View> {
  readonly #events: readonly N[];
  readonly #newModel: () => StreamModel<N, View>;
  readonly #subscribers = new Set<() => void>();
  #model: StreamModel<N, View>;
  #stream: Stream<N> | null = null;
  #phase: StreamState<View>["phase"] = "idle";
  #error: string | null = null;
  #state: StreamState<View>;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #publishedMs = -Infinity;

  constructor(events: readonly N[], newModel: () => StreamModel<N, View>) {
    this.#events = events;
    this.#newModel = newModel;
    this.#model = newModel();
    this.#state = this.#newState();
  }

  readonly subscribe = (subscriber: () => void): (() => void) => {
    this.#subscribers.add(subscriber);
    return () => {
      this.#subscribers.delete(subscriber);
    };
  };

  readonly state = (): StreamState<View> => this.#state;

  /** Run the stream that `open` asks for; one that runs is cancelled, and what it sent is forgotten. */
  start(open: () => Promise<string>): void {
    this.#reset();
    this.#phase = "running";
    this.#stream = new Stream({
      events: this.#events,
      open,
      onEvent: (event) => this.#take(event),
      onFailure: (error) => {
        this.#end({ phase: "failed", error });
      },
    });
    this.#publish();
  }

  readonly cancel = (): void => {
    if (this.#phase !== "running") return;
    this.#phase = "cancelling";
    this.#stream?.cancel();
    this.#publish();
  };

  /** Cancel, and forget all of it. */
  readonly stop = (): void => {
    this.#reset();
    this.#publish();
  };

  #reset(): void {
    this.#stream?.close();
    this.#stream = null;
    this.#model = this.#newModel();
    this.#phase = "idle";
    this.#error = null;
  }

  #take(event: StreamEvent<N>): boolean {
    const end = this.#model.take(event);
    if (end !== null) this.#end(end);
    // A frame would be as good while the page is seen, but none comes while it is hidden.
    else
      this.#timer ??= setTimeout(this.#publish, Math.max(0, this.#publishedMs + PUBLISH_EVERY_MS - performance.now()));
    return end !== null;
  }

  #end(end: StreamEnd): void {
    this.#phase = end.phase;
    this.#error = end.phase === "failed" ? end.error : null;
    this.#publish();
  }

  readonly #publish = (): void => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#publishedMs = performance.now();
    this.#state = this.#newState();
    for (const subscriber of this.#subscribers) subscriber();
  };

  #newState(): StreamState<View> {
    return { phase: this.#phase, error: this.#error, view: this.#model.view() };
  }
}
