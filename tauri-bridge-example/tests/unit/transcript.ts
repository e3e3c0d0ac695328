/** Recorded conversations (`protocol/transcripts/README.md`) as the answers of a back end. */

import { readFileSync } from "node:fs";
import path from "node:path";
import type { Notifications } from "../../../protocol/types";
import { Backend, type Call } from "./backend";

const FOLDER = path.resolve(import.meta.dirname, "../../../protocol/transcripts");

/** A request, and what the sidecar says until the next one; without what stands for any number of lines. */
interface Exchange {
  sent: { id: number; method: string; params?: Record<string, unknown> };
  said: Said[];
}

type Said =
  | { id: number; result: unknown; error?: undefined }
  | { id: number; error: { message: string } }
  | { id?: undefined; method: keyof Notifications; params: Record<string, unknown> };

/** When events come: in tasks after the reply, as the bridge sees to it, or before the reply. */
export type EventsCome = "after the reply" | "before the reply";

/** Names stay as they are, but for numbers: `seq` is counted, another number that differs from run to run is 1. */
export function readTranscript(name: string): Exchange[] {
  const exchanges: Exchange[] = [];
  let seq = 0;
  for (const line of readFileSync(path.join(FOLDER, `${name}.jsonl`), "utf8").split("\n")) {
    if (line.startsWith("> ")) {
      for (const sent of messagesOf<Exchange["sent"]>(line)) exchanges.push({ sent, said: [] });
    } else if (line.startsWith("< ") && line !== "< ...") {
      const counted = (key: string, value: unknown) => (value !== "<number>" ? value : key === "seq" ? seq : 1);
      for (const said of messagesOf<Said>(line, counted)) {
        if (said.id === undefined) seq = (said.params["seq"] as number) + 1;
        exchanges.at(-1)!.said.push(said);
      }
    }
  }
  return exchanges;
}

/** What stands on a line: one message, or those of a batch. */
function messagesOf<Message>(line: string, revive?: (key: string, value: unknown) => unknown): Message[] {
  const value = JSON.parse(line.slice(2), revive) as Message | Message[];
  return Array.isArray(value) ? value : [value];
}

/** A back end that says what the transcript says, if it is asked for what was asked there. */
export function replay(name: string, eventsCome: EventsCome = "after the reply"): Backend {
  const exchanges = readTranscript(name);
  const backend = new Backend(async (call) => {
    const exchange = exchanges.shift();
    if (exchange === undefined || !isSent(call, exchange)) throw new Error(`not in the transcript: ${call.method}`);
    const reply = exchange.said.find((said) => said.id !== undefined);
    if (reply === undefined) throw new Error(`no reply to ${call.method} in the transcript`);
    const tellEvents = () => {
      for (const said of exchange.said) if (said.id === undefined) backend.emit(said.method, said.params);
    };
    if (eventsCome === "before the reply") tellEvents();
    else setTimeout(tellEvents);
    // As the bridge rejects: with the bare message.
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    if (reply.error !== undefined) throw reply.error.message;
    return Promise.resolve(reply.result);
  });
  return backend;
}

function isSent({ method, params }: Call, { sent }: Exchange): boolean {
  return sent.method === method && JSON.stringify(sent.params ?? {}) === JSON.stringify(params);
}
