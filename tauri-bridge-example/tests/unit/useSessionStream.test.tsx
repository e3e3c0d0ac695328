import { act, cleanup, renderHook, waitFor } from "@testing-library/react";
import { StrictMode, useEffect } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type { AgentSessionAnalysis, SessionAnalysis, SessionsChunk } from "../../../protocol/types";
import { useSessionStream, type SessionStream } from "../../src/sessions/useSessionStream";
import { MAX_EARLY_EVENTS } from "../../src/sidecar/stream";
import { PUBLISH_EVERY_MS } from "../../src/sidecar/streamStore";
import { Backend, removeBackend } from "./backend";
import { readTranscript, replay } from "./transcript";

const EVENTS = ["sessions:cancelled", "sessions:chunk", "sessions:done", "sessions:error"];

afterEach(() => {
  cleanup();
  removeBackend();
});

/** A back end whose streams have the handles `h1`, `h2` …, and send what the test tells. */
function newBackend(): Backend {
  let streams = 0;
  return new Backend(({ method }) => (method === "cancel_stream" ? true : `h${String(++streams)}`));
}

function chunk(handleId: string, seq: number, agent = "main", done = false): Partial<SessionsChunk> {
  const sessions = [{ sessionId: `${agent}-${String(seq)}` } as SessionAnalysis];
  const counters = { totalFiles: seq + 1, totalSizeBytes: 10 * (seq + 1), valuableCount: seq + 1 };
  return { handleId, seq, agent, sessions, ...counters, emptyCount: 0, lowValueCount: 0, agentFilesTotal: 9, done };
}

function done(handleId: string, seq: number, cancelled = false) {
  return { handleId, seq, totalAgents: 1, totalSessions: seq, cancelled, failedItems: 0, failures: [] };
}

async function startAndOpen(backend: Backend) {
  const hook = renderHook(() => useSessionStream(null), { wrapper: StrictMode });
  await startAgain(backend, hook.result.current);
  return hook;
}

async function startAgain(backend: Backend, stream: SessionStream) {
  const before = backend.calls.length;
  act(() => {
    stream.start();
  });
  await waitFor(() => {
    expect(backend.calls.slice(before).map(({ method }) => method)).toContain("analyze_sessions_stream");
  });
  await nextTask();
}

/** So that what is under way has been done, the promises of it too. */
async function nextTask() {
  await act(() => new Promise((resolve) => setTimeout(resolve)));
}

async function phaseIs(hook: { result: { current: SessionStream } }, phase: SessionStream["phase"]) {
  await waitFor(() => {
    expect(hook.result.current.phase).toBe(phase);
  });
}

describe("a recorded analysis", () => {
  it.each(["after the reply", "before the reply"] as const)(
    "ends with what the eager command answers, with events that come %s",
    async (eventsCome) => {
      replay("analyze_sessions_stream.small_batches", eventsCome);
      const hook = renderHook(() => useSessionStream(null));
      act(() => {
        hook.result.current.start({ batchSize: 1 });
      });
      await phaseIs(hook, "done");
      const eager = readTranscript("analyze_sessions")[0]!.said[0] as { result: AgentSessionAnalysis[] };
      const { agents, failedItems } = hook.result.current.view;
      expect(agents.length).toBeGreaterThan(1);
      expect(counters(agents)).toEqual(counters(eager.result));
      expect(failedItems).toBe(1);
      expect(agents.every((agent) => agent.done)).toBe(true);
    },
  );

  it("that fails shows the error", async () => {
    const backend = replay("analyze_sessions_stream.failed");
    const hook = renderHook(() => useSessionStream(null));
    act(() => {
      hook.result.current.start();
    });
    await phaseIs(hook, "failed");
    expect(hook.result.current.error).toMatch(/^not a directory/);
    expect(backend.listening).toEqual([]);
  });

  it("that is refused shows why", async () => {
    replay("analyze_sessions_stream.invalid_params");
    const hook = renderHook(() => useSessionStream(null));
    act(() => {
      hook.result.current.start({ batchSize: "50" as unknown as number });
    });
    await phaseIs(hook, "failed");
    expect(hook.result.current.error).toBe("batchSize: Input should be a valid integer");
  });

  it("of nothing is done, without agents", async () => {
    replay("analyze_sessions_stream.nothing_there");
    const hook = renderHook(() => useSessionStream(null));
    act(() => {
      hook.result.current.start();
    });
    await phaseIs(hook, "done");
    expect(hook.result.current.view).toMatchObject({ agents: [], totalSessions: 0 });
  });

  it("that is cancelled keeps what came", async () => {
    const backend = replay("analyze_sessions_stream.cancelled");
    const hook = renderHook(() => useSessionStream(null));
    act(() => {
      hook.result.current.start({ batchSize: 1 });
    });
    await waitFor(() => {
      expect(hook.result.current.view.totalSessions).toBe(1);
    });
    act(() => {
      hook.result.current.cancel();
    });
    expect(hook.result.current.phase).toBe("cancelling");
    await phaseIs(hook, "cancelled");
    expect(hook.result.current.view.totalSessions).toBe(1);
    expect(backend.cancelled).toEqual(["<handle-1>"]);
  });
});

describe("events", () => {
  it("of other handles are passed over", async () => {
    const backend = newBackend();
    const hook = await startAndOpen(backend);
    act(() => {
      backend.emit("sessions:chunk", chunk("another", 0));
      backend.emit("sessions:done", done("another", 1));
      backend.emit("sessions:chunk", chunk("h1", 0));
      backend.emit("sessions:done", done("h1", 1));
    });
    expect(hook.result.current.phase).toBe("done");
    expect(hook.result.current.view.totalSessions).toBe(1);
  });

  it("of which one is missing fail the stream, and cancel it", async () => {
    const backend = newBackend();
    const hook = await startAndOpen(backend);
    act(() => {
      backend.emit("sessions:chunk", chunk("h1", 0));
      backend.emit("sessions:chunk", chunk("h1", 2));
      backend.emit("sessions:done", done("h1", 3));
    });
    expect(hook.result.current).toMatchObject({ phase: "failed", error: "event 1 of the stream is missing: 2 came" });
    expect(backend.cancelled).toEqual(["h1"]);
    await nextTask();
    expect(backend.listening).toEqual([]);
  });

  it("that are more than may wait for the handle fail the stream, and cancel it", async () => {
    const backend = newBackend();
    backend.answerWith(({ method }) => {
      if (method === "cancel_stream") return true;
      for (let seq = 0; seq <= MAX_EARLY_EVENTS; seq++) backend.emit("sessions:chunk", chunk("h1", seq));
      return "h1";
    });
    const hook = await startAndOpen(backend);
    await phaseIs(hook, "failed");
    expect(hook.result.current.error).toBe("too many events came before the handle of the stream");
    expect(backend.cancelled).toEqual(["h1"]);
  });

  it("by the thousand render a few times only", async () => {
    const backend = newBackend();
    let renders = 0;
    const hook = renderHook(() => {
      renders += 1;
      return useSessionStream(null);
    });
    await startAgain(backend, hook.result.current);
    const before = renders;
    const startedMs = performance.now();
    // Each in a task of its own, as events come, without `act`, which would gather the renders of all.
    for (let seq = 0; seq < 1_000; seq++) {
      backend.emit("sessions:chunk", chunk("h1", seq));
      if (seq % 10 === 0) await new Promise((resolve) => setTimeout(resolve));
    }
    backend.emit("sessions:done", done("h1", 1_000));
    await phaseIs(hook, "done");
    expect(hook.result.current.view.agents[0]!.sessions).toHaveLength(1_000);
    // And one for the first, one for the end, one for the start that is still to be seen.
    expect(renders - before).toBeLessThanOrEqual((performance.now() - startedMs) / PUBLISH_EVERY_MS + 3);
  });

  it("leave an agent that has nothing new as it is, so that it isn't rendered", async () => {
    const backend = newBackend();
    const hook = await startAndOpen(backend);
    act(() => {
      backend.emit("sessions:chunk", chunk("h1", 0, "main", true));
    });
    await waitFor(() => {
      expect(hook.result.current.view.agents).toHaveLength(1);
    });
    const [main] = hook.result.current.view.agents;
    act(() => {
      backend.emit("sessions:chunk", chunk("h1", 1, "research"));
      backend.emit("sessions:done", done("h1", 2));
    });
    expect(hook.result.current.view.agents[0]).toBe(main);
    expect(hook.result.current.view.agents[1]!.agent).toBe("research");
  });
});

describe("unmounting", () => {
  it("cancels the stream and removes the listeners", async () => {
    const backend = newBackend();
    const hook = await startAndOpen(backend);
    expect(backend.listening).toEqual(EVENTS);
    hook.unmount();
    await nextTask();
    expect(backend.cancelled).toEqual(["h1"]);
    expect(backend.listening).toEqual([]);
  });

  it("before the handle is known cancels the stream when it is", async () => {
    let reply: (handleId: string) => void = () => undefined;
    const backend = new Backend(({ method }) =>
      method === "cancel_stream" ? true : new Promise((resolve) => (reply = resolve)),
    );
    const hook = await startAndOpen(backend);
    hook.unmount();
    await nextTask();
    expect(backend.listening).toEqual([]);
    expect(backend.cancelled).toEqual([]);
    reply("h1");
    await nextTask();
    expect(backend.cancelled).toEqual(["h1"]);
  });

  it("before the listeners are there starts nothing, and leaves none", async () => {
    const backend = newBackend();
    const hook = renderHook(() => useSessionStream(null));
    act(() => {
      hook.result.current.start();
    });
    hook.unmount();
    await nextTask();
    expect(backend.calls).toEqual([]);
    expect(backend.listening).toEqual([]);
  });

  it("after the end cancels nothing", async () => {
    const backend = newBackend();
    const hook = await startAndOpen(backend);
    act(() => {
      backend.emit("sessions:done", done("h1", 0));
    });
    hook.unmount();
    await nextTask();
    expect(backend.cancelled).toEqual([]);
  });

  it("and mounting again, as StrictMode does, leaves one stream that runs", async () => {
    const backend = newBackend();
    const hook = renderHook(
      () => {
        const stream = useSessionStream(null);
        const { start } = stream;
        useEffect(() => {
          start();
        }, [start]);
        return stream;
      },
      { wrapper: StrictMode },
    );
    await nextTask();
    const started = backend.calls.filter(({ method }) => method === "analyze_sessions_stream");
    expect(started).toHaveLength(1);
    expect(backend.listening).toEqual(EVENTS);
    act(() => {
      backend.emit("sessions:done", done("h1", 0));
    });
    expect(hook.result.current.phase).toBe("done");
  });
});

describe("a second start", () => {
  it("cancels the first, whose events are passed over", async () => {
    const backend = newBackend();
    const hook = await startAndOpen(backend);
    act(() => {
      backend.emit("sessions:chunk", chunk("h1", 0));
    });
    await startAgain(backend, hook.result.current);
    expect(backend.cancelled).toEqual(["h1"]);
    act(() => {
      backend.emit("sessions:done", done("h1", 1, true));
      backend.emit("sessions:chunk", chunk("h2", 0, "other"));
      backend.emit("sessions:done", done("h2", 1));
    });
    expect(hook.result.current.phase).toBe("done");
    expect(hook.result.current.view.agents.map(({ agent }) => agent)).toEqual(["other"]);
    await nextTask();
    expect(backend.listening).toEqual([]);
  });

  it("before the first has its handle cancels that as soon as it has", async () => {
    const replies: ((handleId: string) => void)[] = [];
    const backend = new Backend(({ method }) =>
      method === "cancel_stream" ? true : new Promise((resolve) => replies.push(resolve)),
    );
    const hook = await startAndOpen(backend);
    await startAgain(backend, hook.result.current);
    replies[1]!("h2");
    replies[0]!("h1");
    await nextTask();
    expect(backend.cancelled).toEqual(["h1"]);
    act(() => {
      backend.emit("sessions:done", done("h2", 0));
    });
    expect(hook.result.current.phase).toBe("done");
  });

  it("on another host asks that host, and the first is cancelled", async () => {
    const backend = newBackend();
    const hook = renderHook(({ hostId }) => useSessionStream(hostId), {
      initialProps: { hostId: null as string | null },
    });
    await startAgain(backend, hook.result.current);
    hook.rerender({ hostId: "ssh:lab" });
    expect(hook.result.current.phase).toBe("idle");
    expect(backend.cancelled).toEqual(["h1"]);
    act(() => {
      hook.result.current.start({ batchSize: 5 });
    });
    await nextTask();
    const call = { method: "remote_analyze_sessions_stream", params: { hostId: "ssh:lab", batchSize: 5 } };
    expect(backend.calls.at(-1)).toEqual(call);
  });
});

it("a cancel before the handle is known is sent when it is", async () => {
  let reply: (handleId: string) => void = () => undefined;
  const backend = new Backend(({ method }) =>
    method === "cancel_stream" ? true : new Promise((resolve) => (reply = resolve)),
  );
  const hook = await startAndOpen(backend);
  act(() => {
    hook.result.current.cancel();
  });
  reply("h1");
  await nextTask();
  expect(backend.cancelled).toEqual(["h1"]);
  act(() => {
    backend.emit("sessions:cancelled", { handleId: "h1", seq: 0 });
    backend.emit("sessions:done", done("h1", 1, true));
  });
  expect(hook.result.current.phase).toBe("cancelled");
});

function counters(agents: readonly Omit<AgentSessionAnalysis, "sessions">[]) {
  return agents
    .map(({ agent, totalFiles, totalSizeBytes, emptyCount, lowValueCount, valuableCount }) => ({
      agent,
      totalFiles,
      totalSizeBytes,
      emptyCount,
      lowValueCount,
      valuableCount,
    }))
    .sort((one, other) => (one.agent < other.agent ? -1 : 1));
}
