import { act, cleanup, renderHook, waitFor } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";
import type { AgentSessionAnalysis, SessionAnalysis } from "../../../protocol/types";
import { EAGER_MAX_FILES } from "../../src/sessions/analysisRun";
import { useSessionStream } from "../../src/sessions/useSessionStream";
import { Backend, removeBackend, type Call } from "./backend";

const LISTED = { files: [], totalSizeBytes: 0 };
const DONE = { totalSizeBytes: 0, cancelled: false, failedItems: 0, failures: [] };

afterEach(() => {
  cleanup();
  removeBackend();
});

function agentOf(count: number): AgentSessionAnalysis {
  const sessions = Array.from(
    { length: count },
    (_, index) => ({ sessionId: `s-${String(index)}`, sizeBytes: 10, category: "valuable" }) as SessionAnalysis,
  );
  const counters = { totalFiles: count, totalSizeBytes: 10 * count, emptyCount: 0, lowValueCount: 0 };
  return { agent: "main", ...counters, valuableCount: count, sessions };
}

/** A back end that lists so many files, and analyses as many sessions by one answer. */
function newBackend(files: number, failedItems = 0): Backend {
  const backend = new Backend(({ method }: Call) => {
    if (method === "list_session_files_stream") {
      setTimeout(() => {
        backend.emit("session-files:chunk", { handleId: "list", seq: 0, ...LISTED, totalFiles: files });
        backend.emit("session-files:done", { handleId: "list", seq: 1, ...DONE, totalFiles: files, failedItems });
      });
      return "list";
    }
    if (method === "analyze_sessions") return [agentOf(files)];
    return method === "cancel_stream" ? true : "analysis";
  });
  return backend;
}

async function analyse(backend: Backend, last: string) {
  const hook = renderHook(() => useSessionStream(null));
  act(() => {
    hook.result.current.analyse();
  });
  await waitFor(() => {
    expect(backend.calls.map(({ method }) => method)).toContain(last);
  });
  await act(() => new Promise((resolve) => setTimeout(resolve)));
  return hook;
}

const methodsOf = (backend: Backend) =>
  backend.calls.map(({ method }) => method).filter((name) => name !== "cancel_stream");

describe("the choice of a command", () => {
  it.each([
    [1, 0, "analyze_sessions"],
    [EAGER_MAX_FILES, 0, "analyze_sessions"],
    [EAGER_MAX_FILES + 1, 0, "analyze_sessions_stream"],
    // Only the stream tells which.
    [1, 1, "analyze_sessions_stream"],
  ])("for %i files, of which %i can't be listed, is %s", async (files, failedItems, chosen) => {
    const backend = newBackend(files, failedItems);
    await analyse(backend, chosen);
    expect(methodsOf(backend)).toEqual(["list_session_files_stream", chosen]);
    // More than enough are never listed.
    expect(backend.cancelled).toEqual(files > EAGER_MAX_FILES ? ["list"] : []);
  });

  it("is not made again where there were many", async () => {
    const backend = newBackend(EAGER_MAX_FILES + 1);
    const hook = await analyse(backend, "analyze_sessions_stream");
    const { sessions, ...counters } = agentOf(EAGER_MAX_FILES + 1);
    const chunk = { ...counters, sessions, agentFilesTotal: EAGER_MAX_FILES + 1, done: true };
    act(() => {
      backend.emit("sessions:chunk", { handleId: "analysis", seq: 0, ...chunk });
      backend.emit("sessions:done", { handleId: "analysis", seq: 1, cancelled: false, failedItems: 0, failures: [] });
    });
    expect(hook.result.current.phase).toBe("done");
    act(() => {
      hook.result.current.analyse();
    });
    await waitFor(() => {
      expect(methodsOf(backend)).toHaveLength(3);
    });
    expect(methodsOf(backend)[2]).toBe("analyze_sessions_stream");
  });
});

describe("the eager answer", () => {
  it("is shown as a stream's would be", async () => {
    const hook = await analyse(newBackend(3), "analyze_sessions");
    expect(hook.result.current).toMatchObject({ phase: "done", view: { totalSessions: 3, totalSizeBytes: 30 } });
    expect(hook.result.current.view.agents[0]).toMatchObject({ agent: "main", agentFilesTotal: 3, done: true });
  });

  it("that fails is a failure, with its words", async () => {
    const backend = newBackend(1);
    const answer = backend.answer;
    backend.answerWith((call) => {
      // As the bridge rejects: with the bare message.
      // eslint-disable-next-line @typescript-eslint/only-throw-error
      if (call.method === "analyze_sessions") throw "no such file or directory: agents";
      return answer(call);
    });
    const hook = await analyse(backend, "analyze_sessions");
    expect(hook.result.current).toMatchObject({ phase: "failed", error: "no such file or directory: agents" });
  });

  it("that comes after a cancel is passed over", async () => {
    const backend = newBackend(1);
    const answer = backend.answer;
    let reply: (agents: AgentSessionAnalysis[]) => void = () => undefined;
    backend.answerWith((call) =>
      call.method === "analyze_sessions" ? new Promise((resolve) => (reply = resolve)) : answer(call),
    );
    const hook = await analyse(backend, "analyze_sessions");
    act(() => {
      hook.result.current.cancel();
    });
    expect(hook.result.current.phase).toBe("cancelled");
    reply([agentOf(1)]);
    await act(() => new Promise((resolve) => setTimeout(resolve)));
    expect(hook.result.current).toMatchObject({ phase: "cancelled", view: { totalSessions: 0 } });
  });
});

it("sessions that were deleted are gone from the counters too, and an agent with its last", async () => {
  const hook = await analyse(newBackend(3), "analyze_sessions");
  act(() => {
    hook.result.current.remove([{ agent: "main", sessionId: "s-1" }]);
  });
  const [main] = hook.result.current.view.agents;
  expect(main).toMatchObject({ totalFiles: 2, agentFilesTotal: 2, valuableCount: 2, totalSizeBytes: 20 });
  expect(main!.sessions.map(({ sessionId }) => sessionId)).toEqual(["s-0", "s-2"]);
  act(() => {
    hook.result.current.remove(main!.sessions);
  });
  expect(hook.result.current.view.agents).toEqual([]);
});
