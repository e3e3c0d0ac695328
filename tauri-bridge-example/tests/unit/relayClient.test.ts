import { listen } from "@tauri-apps/api/event";
import { clearMocks, mockIPC } from "@tauri-apps/api/mocks";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RelayClient } from "../../src/browser/relay";

let sent: { id: number; method: string; params: unknown }[];
let client: RelayClient;

beforeEach(() => {
  sent = [];
  client = new RelayClient((line) => sent.push(JSON.parse(line) as (typeof sent)[number]));
  mockIPC(client.invoke, { shouldMockEvents: true });
});

afterEach(clearMocks);

describe("a call", () => {
  it("is a line, and resolves with the result of the reply that has its id", async () => {
    const first = client.invoke("ping", {});
    const second = client.invoke("list_backups", {});
    expect(sent.map(({ method }) => method)).toEqual(["ping", "list_backups"]);
    client.take(JSON.stringify({ jsonrpc: "2.0", id: sent[1]!.id, result: [] }));
    client.take(JSON.stringify({ jsonrpc: "2.0", id: sent[0]!.id, result: "pong" }));
    expect(await first).toBe("pong");
    expect(await second).toEqual([]);
  });

  it("rejects with the bare message of an error", async () => {
    const call = client.invoke("ssh_connect", { hostId: "ssh:lab" });
    const error = {
      code: -32030,
      message: "no such host: ssh:lab",
      data: { kind: "host_not_found", retryable: false },
    };
    client.take(JSON.stringify({ jsonrpc: "2.0", id: sent[0]!.id, error }));
    await expect(call).rejects.toBe("no such host: ssh:lab");
  });

  it("of a plugin that isn't there rejects", async () => {
    await expect(client.invoke("plugin:dialog|open", {})).rejects.toBe("plugin:dialog|open is not there in a browser");
    expect(sent).toEqual([]);
  });

  it("rejects when the connection has ended, before it or after", async () => {
    const before = client.invoke("ping", {});
    client.close();
    await expect(before).rejects.toBe("the sidecar is gone");
    await expect(client.invoke("ping", {})).rejects.toBe("the sidecar is gone");
  });
});

it("events of a handle come in order, after the code that awaits the handle has run", async () => {
  const seen: unknown[] = [];
  for (const name of ["sessions:chunk", "sessions:done"]) {
    await listen<{ seq: number }>(name, ({ payload }) => seen.push(payload.seq));
  }
  const awaiting = (async () => {
    seen.push(await client.invoke("analyze_sessions_stream", {}));
    await Promise.resolve();
    seen.push("and what follows");
  })();
  client.take(JSON.stringify({ jsonrpc: "2.0", id: sent[0]!.id, result: "h1" }));
  client.take(JSON.stringify({ jsonrpc: "2.0", method: "sessions:chunk", params: { handleId: "h1", seq: 0 } }));
  client.take(JSON.stringify({ jsonrpc: "2.0", method: "sessions:done", params: { handleId: "h1", seq: 1 } }));
  client.take(JSON.stringify({ jsonrpc: "2.0", method: "sessions:done", params: { handleId: "another", seq: 7 } }));
  await awaiting;
  expect(seen).toEqual([7, "h1", "and what follows"]);
  await new Promise((resolve) => setTimeout(resolve));
  expect(seen).toEqual([7, "h1", "and what follows", 0, 1]);
});
