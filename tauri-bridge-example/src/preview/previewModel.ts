/** The messages of a session as they arrive, page by page. */

import type { ErrorKind, PreviewMessage } from "../../../protocol/types";
import type { StreamEvent } from "../sidecar/stream";
import type { StreamEnd, StreamModel } from "../sidecar/streamStore";

export const PREVIEW_EVENTS = [
  "session-preview:page",
  "session-preview:done",
  "sessions:cancelled",
  "sessions:error",
] as const;
export type PreviewEventName = (typeof PREVIEW_EVENTS)[number];

/** A browser draws no element that is much higher than so many messages are together. */
export const PREVIEW_MAX_MESSAGES = 100_000;
/** Of the text of all messages: what a page may take without harm to the machine. */
export const PREVIEW_MAX_CHARS = 128 * 1024 * 1024;

export interface Page {
  readonly offset: number;
  readonly messages: readonly PreviewMessage[];
}

export interface PreviewView {
  readonly pages: readonly Page[];
  readonly totalMessages: number;
  readonly skippedLines: number;
  /** There is more than a page can show. */
  readonly full: boolean;
}

export class PreviewModel implements StreamModel<PreviewEventName, PreviewView> {
  readonly #pages: Page[] = [];
  #totalMessages = 0;
  #chars = 0;
  #skippedLines = 0;
  #full = false;
  #error: { error: string; kind: ErrorKind } | null = null;

  take(event: StreamEvent<PreviewEventName>): StreamEnd | null {
    switch (event.name) {
      case "session-preview:page":
        this.#add(event.payload);
        return null;
      case "sessions:cancelled": // the terminal says it too
        return null;
      case "sessions:error":
        this.#error = event.payload;
        return null;
      case "session-preview:done":
        this.#skippedLines = event.payload.skippedLines;
        if (this.#error !== null) return { phase: "failed", error: this.#error.error, kind: this.#error.kind };
        return { phase: event.payload.cancelled && !this.#full ? "cancelled" : "done" };
    }
  }

  view(): PreviewView {
    return {
      pages: [...this.#pages],
      totalMessages: this.#totalMessages,
      skippedLines: this.#skippedLines,
      full: this.#full,
    };
  }

  #add({ offset, messages }: Page): void {
    if (this.#full) return;
    const room = PREVIEW_MAX_MESSAGES - offset;
    const kept = messages.length > room ? messages.slice(0, room) : messages;
    for (const { content } of kept) this.#chars += content.length;
    this.#full = messages.length > room || this.#chars > PREVIEW_MAX_CHARS;
    if (kept.length === 0) return;
    this.#pages.push({ offset, messages: kept });
    this.#totalMessages = offset + kept.length;
  }
}

/** The message of that number, from 0. */
export function messageAt(pages: readonly Page[], index: number): PreviewMessage {
  let low = 0;
  let high = pages.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (pages[middle]!.offset <= index) low = middle;
    else high = middle - 1;
  }
  const { offset, messages } = pages[low]!;
  return messages[index - offset]!;
}
