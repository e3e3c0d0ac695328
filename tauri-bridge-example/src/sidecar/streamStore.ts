/** What a stream has sent so far, as a store that React can read. */

import type { ErrorKind } from "../../../protocol/types";
import type { EventName, Run, RunHandlers, StreamEvent } from "./stream";

/** Views are made at most once in this time, however many events come. */
export const PUBLISH_EVERY_MS = 50;

export type StreamEnd =
  { phase: "done" } | { phase: "cancelled" } | { phase: "failed"; error: string; kind?: ErrorKind };

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
  /** Of the error, where the stream itself told it: a rejected command has only words. */
  kind: ErrorKind | null;
  view: View;
}

/** Does one run at a time. It can be stopped and started any number of times. */
export class StreamStore<N extends EventName, View, Model extends StreamModel<N, View> = StreamModel<N, View>> {
  readonly #newModel: () => Model;
  readonly #subscribers = new Set<() => void>();
  #model: Model;
  #run: Run | null = null;
  #phase: StreamState<View>["phase"] = "idle";
  #error: string | null = null;
  #kind: ErrorKind | null = null;
  #state: StreamState<View>;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #publishedMs = -Infinity;

  constructor(newModel: () => Model) {
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

  /** Begin a run; one before is cancelled, and what it sent is forgotten. */
  start(newRun: (handlers: RunHandlers<N>) => Run): void {
    this.#reset();
    this.#phase = "running";
    this.#run = newRun({
      onEvent: (event) => this.#take(event),
      onFailure: (error) => {
        this.#end({ phase: "failed", error });
      },
    });
    this.#publish();
  }

  /** Change what has come, which the sidecar knows to have changed. */
  change(change: (model: Model) => void): void {
    change(this.#model);
    this.#publish();
  }

  readonly cancel = (): void => {
    if (this.#phase !== "running") return;
    this.#phase = "cancelling";
    this.#run?.cancel();
    this.#publish();
  };

  /** Cancel, and forget all of it. */
  readonly stop = (): void => {
    this.#reset();
    this.#publish();
  };

  #reset(): void {
    this.#run?.close();
    this.#run = null;
    this.#model = this.#newModel();
    this.#phase = "idle";
    this.#error = null;
    this.#kind = null;
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
    if (end.phase === "failed") {
      this.#error = end.error;
      this.#kind = end.kind ?? null;
    }
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
    return { phase: this.#phase, error: this.#error, kind: this.#kind, view: this.#model.view() };
  }
}
