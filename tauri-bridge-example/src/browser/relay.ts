/**
 * A Tauri back end for the page in a browser: the sidecar, over the WebSocket of the relay (`relay/relay.ts`).
 *
 * What the page calls is from `@tauri-apps/api/mocks`, which knows how the API of its version speaks to Tauri.
 */

import { emit } from "@tauri-apps/api/event";
import { mockIPC } from "@tauri-apps/api/mocks";

/** Where the server of the page has the relay. */
export const RELAY_PATH = "/sidecar";

interface Message {
  id?: number;
  result?: unknown;
  error?: { message: string };
  method?: string;
  params?: { handleId: string };
}

interface Pending {
  method: string;
  resolve: (result: unknown) => void;
  reject: (message: string) => void;
}

/** Resolves when the page may call commands. `onClosed` is told when it no longer can, and why. */
export async function connectToRelay(onClosed: (reason: string) => void): Promise<void> {
  const socket = new WebSocket(RELAY_PATH);
  await new Promise<void>((resolve, reject) => {
    socket.onopen = () => {
      resolve();
    };
    socket.onclose = () => {
      reject(new Error("the relay refused the connection"));
    };
  });
  const client = new RelayClient((line) => {
    socket.send(line);
  });
  socket.onmessage = ({ data }) => {
    client.take(data as string);
  };
  socket.onclose = ({ reason }) => {
    client.close();
    onClosed(reason || "the relay closed the connection");
  };
  mockIPC(client.invoke, { shouldMockEvents: true });
}

/** Requests and replies matched, and events told as Tauri's bridge tells them. */
export class RelayClient {
  readonly #send: (line: string) => void;
  readonly #pending = new Map<number, Pending>();
  /** Of each handle that the page may not know yet, what came since: no more than comes before a timer of 0 ms. */
  readonly #held = new Map<string, Message[]>();
  #lastId = 0;
  #closed = false;

  constructor(send: (line: string) => void) {
    this.#send = send;
  }

  /** Rejects with the bare message of an error. */
  readonly invoke = (method: string, params: unknown): Promise<unknown> =>
    new Promise((resolve, reject: (message: string) => void) => {
      if (this.#closed) {
        reject("the sidecar is gone");
      } else if (method.startsWith("plugin:")) {
        reject(`${method} is not there in a browser`);
      } else {
        const id = ++this.#lastId;
        this.#pending.set(id, { method, resolve, reject });
        this.#send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
      }
    });

  /** Take a line of the sidecar. */
  take(line: string): void {
    const message = JSON.parse(line) as Message;
    if (message.id === undefined) this.#notify(message);
    else this.#reply(message.id, message);
  }

  /** No more lines come. */
  close(): void {
    this.#closed = true;
    for (const { reject } of this.#pending.values()) reject("the sidecar is gone");
    this.#pending.clear();
  }

  #reply(id: number, message: Message): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    if (message.error !== undefined) {
      pending.reject(message.error.message);
      return;
    }
    if (pending.method.endsWith("_stream") && typeof message.result === "string") this.#hold(message.result);
    pending.resolve(message.result);
  }

  /** The page's code after `await invoke(…)` runs in microtasks; the timer comes after those. */
  #hold(handleId: string): void {
    const held: Message[] = [];
    this.#held.set(handleId, held);
    setTimeout(() => {
      this.#held.delete(handleId);
      for (const message of held) this.#emit(message);
    });
  }

  #notify(message: Message): void {
    const held = message.params && this.#held.get(message.params.handleId);
    if (held) held.push(message);
    else this.#emit(message);
  }

  #emit({ method, params }: Message): void {
    // It rejects if a listener throws, as an error of the page.
    if (method !== undefined) void emit(method, params);
  }
}
