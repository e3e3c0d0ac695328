/**
 * The relay: the page of a browser speaks to a sidecar of its own, line by line, over a WebSocket.
 *
 * For work on the page, and for tests. Whoever may connect reads this user's sessions, so it serves this machine only,
 * and only the page that the same server has sent.
 */

import { spawn, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import type { IncomingMessage, Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Readable, Writable } from "node:stream";
import { WebSocketServer, type WebSocket } from "ws";
import { linesOf } from "./lines.ts";

/** What the sidecar takes as a line. */
const MAX_INPUT_LINE_BYTES = 16 * 1024 * 1024;
/** The largest reply of the sidecar, and the rest of its line. */
const MAX_OUTPUT_LINE_BYTES = 257 * 1024 * 1024;
const MAX_PAGES = 16;
const SIDECAR_ENDS_WITHIN_MS = 5_000;
/** A close frame holds 123 bytes of reason. */
const MAX_REASON_CHARS = 100;

export interface RelayOptions {
  /** Where on the server the WebSocket is. */
  path: string;
  /** The sidecar's program; it gets no arguments. */
  command: string;
  /** Its environment. */
  env: NodeJS.ProcessEnv;
}

type Sidecar = ChildProcessByStdio<Writable, Readable, null>;

/** Serves the relay on a server of pages. Whoever closes that ends its connections, as Vite does. */
export function serveRelay(server: Server, { path, command, env }: RelayOptions): void {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_INPUT_LINE_BYTES, perMessageDeflate: false });
  server.on("upgrade", (request, connection, head) => {
    if (request.url !== path) return; // another's, such as Vite's own
    const refusal = refusalOf(request, server, sockets.clients.size);
    if (refusal !== null) {
      connection.end(`HTTP/1.1 ${refusal}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    sockets.handleUpgrade(request, connection, head, (socket) => {
      void relay(socket, spawn(command, { env, stdio: ["pipe", "pipe", "inherit"] }));
    });
  });
}

/** The status of a connection that isn't served. */
function refusalOf(request: IncomingMessage, server: Server, pages: number): string | null {
  const { port } = server.address() as AddressInfo;
  const hosts = [`127.0.0.1:${String(port)}`, `localhost:${String(port)}`];
  const fromHere = ["127.0.0.1", "::1", "::ffff:127.0.0.1"].includes(request.socket.remoteAddress ?? "");
  const { origin, host } = request.headers;
  // Any page may open a WebSocket to this machine: its origin says which one it is, and a browser doesn't let it lie.
  if (!fromHere || host === undefined || !hosts.includes(host) || origin !== `http://${host}`) return "403 Forbidden";
  return pages >= MAX_PAGES ? "503 Service Unavailable" : null;
}

/** Until one of the two ends; then the other does. */
async function relay(socket: WebSocket, sidecar: Sidecar): Promise<void> {
  const ended = once(sidecar, "close");
  ended.catch(() => undefined); // it rejects if the program can't be started, maybe before it is waited for
  socket.on("error", () => undefined); // its close follows
  socket.on("close", () => {
    void end(sidecar);
  });
  // What is written to a process that has ended is lost, and its end is seen below.
  sidecar.stdin.on("error", () => undefined);
  sidecar.stdin.on("drain", () => {
    socket.resume();
  });
  socket.on("message", (line) => {
    if (!sidecar.stdin.write(`${(line as Buffer).toString()}\n`)) socket.pause();
  });
  try {
    for await (const line of linesOf(sidecar.stdout, MAX_OUTPUT_LINE_BYTES)) await sent(socket, line);
    const [code, signal] = (await ended) as [number | null, string | null];
    close(socket, signal === null ? `it exited with ${String(code)}` : `it was ended by ${signal}`);
  } catch (error) {
    close(socket, (error as Error).message);
  }
}

/** When the line has been handed to the system: so nothing is read from a sidecar whose page doesn't read. */
function sent(socket: WebSocket, line: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(line, { binary: false }, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

function close(socket: WebSocket, reason: string): void {
  socket.close(1011, reason.slice(0, MAX_REASON_CHARS));
}

/** The sidecar cancels what runs and ends when its pipes break; one that doesn't is killed. */
async function end(sidecar: Sidecar): Promise<void> {
  sidecar.stdin.destroy();
  sidecar.stdout.destroy();
  if (sidecar.pid === undefined || sidecar.exitCode !== null || sidecar.signalCode !== null) return;
  const deadline = setTimeout(() => sidecar.kill("SIGKILL"), SIDECAR_ENDS_WITHIN_MS);
  await once(sidecar, "exit");
  clearTimeout(deadline);
}
