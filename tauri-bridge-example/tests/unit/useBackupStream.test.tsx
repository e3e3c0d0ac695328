import { act, cleanup, renderHook, waitFor } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";
import type { BackupInfo } from "../../../protocol/types";
import { useBackupStream, type BackupStream } from "../../src/backup/useBackupStream";
import { Backend, removeBackend } from "./backend";
import { replay } from "./transcript";

afterEach(() => {
  cleanup();
  removeBackend();
});

function start(hostId: string | null = null) {
  const hook = renderHook(() => useBackupStream(hostId));
  act(() => {
    hook.result.current.start();
  });
  return hook;
}

async function phaseIs(hook: { result: { current: BackupStream } }, phase: BackupStream["phase"]) {
  await waitFor(() => {
    expect(hook.result.current.phase).toBe(phase);
  });
}

describe("a recorded backup", () => {
  it("is done with the snapshot that was made", async () => {
    const backend = replay("backup_before_upgrade_stream");
    const hook = start();
    await phaseIs(hook, "done");
    expect(hook.result.current.view.info).toMatchObject({ name: "<backup-1>", sizeBytes: 4771, status: "complete" });
    expect(backend.listening).toEqual([]);
  });

  it("of a host is asked by that host's id", async () => {
    const backend = replay("remote_backup_before_upgrade_stream");
    const hook = start("ssh:sample");
    await phaseIs(hook, "done");
    expect(backend.calls).toEqual([
      { method: "remote_backup_before_upgrade_stream", params: { hostId: "ssh:sample" } },
    ]);
  });
});

describe("cancel", () => {
  it("is no failure, and there is no snapshot", async () => {
    const backend = new Backend(({ method }) => {
      if (method !== "cancel_stream") return "h1";
      setTimeout(() => {
        backend.emit("backup:cancelled", { handleId: "h1", seq: 0 });
        backend.emit("backup:error", { handleId: "h1", seq: 1, error: "cancelled", kind: "cancelled" });
      });
      return true;
    });
    const hook = start();
    await waitFor(() => {
      expect(backend.calls).toHaveLength(1);
    });
    act(() => {
      hook.result.current.cancel();
    });
    await phaseIs(hook, "cancelled");
    expect(hook.result.current).toMatchObject({ error: null, view: { info: null } });
  });
});

describe("what is done with a backup", () => {
  it("is a check, which names what is damaged", async () => {
    replay("verify_backup_stream.damaged");
    const hook = renderHook(() => useBackupStream(null));
    act(() => {
      hook.result.current.verify("2024-05-01_100000");
    });
    await phaseIs(hook, "failed");
    expect(hook.result.current).toMatchObject({
      kind: "backup_damaged",
      work: { what: "verify", backupName: "2024-05-01_100000" },
      view: { failedItems: 1, failures: [{ path: "openclaw.json" }] },
    });
  });

  it("is a restore, which says what was kept of the state before", async () => {
    const backend = new Backend(({ params }) => {
      expect(params).toEqual({ backupName: "b-1", force: false });
      return "h1";
    });
    const hook = renderHook(() => useBackupStream(null));
    act(() => {
      hook.result.current.restore("b-1");
    });
    await act(() => new Promise((resolve) => setTimeout(resolve)));
    const [info, previous] = ["b-1", "b-2"].map((name) => ({ name }) as BackupInfo);
    act(() => {
      backend.emit("restore:done", { handleId: "h1", seq: 0, info: info!, previous: previous!, message: "" });
    });
    expect(hook.result.current).toMatchObject({ phase: "done", view: { info, previous } });
  });
});

describe("progress", () => {
  it("is shown as it comes, and stays when the backup fails", async () => {
    const backend = new Backend(() => "h1");
    const hook = start();
    await waitFor(() => {
      expect(backend.calls).toHaveLength(1);
    });
    const copied = { phase: "agents" as const, filesCopied: 3, bytesCopied: 30, filesTotal: 9, bytesTotal: 90 };
    // The handle is known when what awaits the reply has run.
    await act(() => new Promise((resolve) => setTimeout(resolve)));
    act(() => {
      backend.emit("backup:progress", { handleId: "h1", seq: 0, ...copied, currentPath: "agents/main" });
    });
    await waitFor(() => {
      expect(hook.result.current.view.progress).toMatchObject(copied);
    });
    expect(hook.result.current.phase).toBe("running");
    act(() => {
      backend.emit("backup:error", { handleId: "h1", seq: 1, error: "no space left", kind: "no_space" });
    });
    expect(hook.result.current).toMatchObject({ phase: "failed", error: "no space left", view: { progress: copied } });
  });
});
