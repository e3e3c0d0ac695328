import { spawnSync } from "node:child_process";
import { on, once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import type { SidecarInfo } from "../../../protocol/types";
import { serveRelay } from "../../relay/relay";
import { bytesWritten, COMMAND, environment, processEnds, writeHomes, type Homes } from "./sidecar";

interface Message {
  id?: number;
  result?: unknown;
  method?: string;
  params?: { seq: number; cancelled?: boolean };
}

let homes: Homes;
let server: Server;
const open: WebSocket[] = [];

beforeAll(() => {
  homes = writeHomes();
});

afterAll(() => {
  homes.remove();
});

beforeEach(async () => {
  await serve();
});

afterEach(async () => {
  for (const socket of open.splice(0)) socket.terminate();
  await closeServer();
});

async function serve(command = COMMAND) {
  server = createServer((_request, response) => response.writeHead(404).end());
  serveRelay(server, { path: "/sidecar", command, env: environment(homes.large) });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
}

async function closeServer() {
  const closed = once(server, "close");
  server.close();
  await closed;
}

function address(): string {
  return `127.0.0.1:${String((server.address() as AddressInfo).port)}`;
}

function newSocket(headers: Record<string, string> = {}): WebSocket {
  const socket = new WebSocket(`ws://${address()}/sidecar`, { headers: { origin: `http://${address()}`, ...headers } });
  open.push(socket);
  return socket;
}

async function connect(): Promise<WebSocket> {
  const socket = newSocket();
  await once(socket, "open");
  return socket;
}

function send(socket: WebSocket, id: number, method: string, params = {}) {
  socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
}

async function* messagesOf(socket: WebSocket): AsyncGenerator<Message> {
  const frames = on(socket, "message", { close: ["close"] }) as AsyncIterable<[Buffer]>;
  for await (const [data] of frames) yield JSON.parse(data.toString()) as Message;
}

async function pidOf(socket: WebSocket): Promise<number> {
  const reply = once(socket, "message") as Promise<[Buffer]>;
  send(socket, 1, "get_sidecar_info");
  const { result } = JSON.parse((await reply)[0].toString()) as { result: SidecarInfo };
  return result.pid;
}

describe("a connection", () => {
  it("has a sidecar of its own, which ends with it", async () => {
    const [one, other] = [await connect(), await connect()];
    const [onePid, otherPid] = [await pidOf(one), await pidOf(other)];
    expect(onePid).not.toBe(otherPid);
    one.close();
    await processEnds(onePid);
    expect(await pidOf(other)).toBe(otherPid);
    other.terminate();
    await processEnds(otherPid);
  });

  it("that breaks in the middle of a stream leaves no sidecar", async () => {
    const socket = await connect();
    const pid = await pidOf(socket);
    send(socket, 2, "analyze_sessions_stream", { batchSize: 1 });
    for await (const { method } of messagesOf(socket)) if (method !== undefined) break;
    socket.terminate();
    await processEnds(pid);
  });

  it("ends with the sidecar, and says how that ended", async () => {
    const socket = await connect();
    const pid = await pidOf(socket);
    const closed = once(socket, "close") as Promise<[number, Buffer]>;
    process.kill(pid, "SIGKILL");
    const [code, reason] = await closed;
    expect([code, reason.toString()]).toEqual([1011, "it was ended by SIGKILL"]);
  });

  it("to a program that can't be started ends with the reason", async () => {
    await closeServer();
    await serve("/no/such/program");
    const [, reason] = (await once(newSocket(), "close")) as [number, Buffer];
    expect(reason.toString()).toBe("spawn /no/such/program ENOENT");
  });
});

describe("a connection is refused", () => {
  it.each([
    ["of another page", { origin: "http://example.org" }],
    ["of another server on this machine", { origin: "http://127.0.0.1:1" }],
    ["of a program that names no page", { origin: "" }],
    ["that reached this machine by another name", { host: "example.org", origin: "http://example.org" }],
  ])("%s", async (_whose, headers) => {
    const [error] = (await once(newSocket(headers), "error")) as [Error];
    expect(error.message).toBe("Unexpected server response: 403");
  });

  it("beyond the number of pages that are served", async () => {
    for (let page = 0; page < 16; page++) await connect();
    const [error] = (await once(newSocket(), "error")) as [Error];
    expect(error.message).toBe("Unexpected server response: 503");
  });
});

it("a page that doesn't read holds the sidecar back, and gets all of it when it reads again", async () => {
  const socket = await connect();
  const pid = await pidOf(socket);
  const before = bytesWritten(pid);
  const messages = messagesOf(socket);
  send(socket, 2, "analyze_sessions_stream");
  for (;;) if (((await messages.next()).value as Message).method !== undefined) break;
  socket.pause();
  // What may be on its way is in buffers of the system, which can take some megabytes.
  const whole = spawnSync(COMMAND, {
    env: environment(homes.large),
    input: '{"jsonrpc":"2.0","id":1,"method":"analyze_sessions_stream"}\n',
    maxBuffer: 1 << 30,
  }).stdout.length;
  let last = -1;
  await expect.poll(() => last === (last = bytesWritten(pid)), { interval: 500, timeout: 20_000 }).toBe(true);
  expect(whole).toBeGreaterThan(100_000_000);
  expect(last - before).toBeLessThan(whole / 4);
  socket.resume();
  let next = 1;
  for await (const { method, params } of messages) {
    expect(params?.seq).toBe(next++);
    if (method === "sessions:done") break;
  }
  expect(bytesWritten(pid) - before).toBeGreaterThan(whole * 0.99);
});
