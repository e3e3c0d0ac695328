// Needs a screen (xvfb-run), tauri-driver, WebKitWebDriver, and the example app, built: see ../../README.md.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import {
  App,
  Home,
  SIDECAR,
  WITHIN_MS,
  eventually,
  openScreen,
  parentOf,
  residentMiB,
  runs,
  webProcessOf,
} from "./app.js";

const STANDS_STILL_MS = 5000;

let home;
let app;

beforeEach(() => {
  home = new Home();
});

let closeScreen;

before(async () => {
  closeScreen = await openScreen();
});

after(() => closeScreen());

afterEach(async () => {
  await app?.close();
  app = undefined;
  home.remove();
});

test("the page shows what an analysis counts", async () => {
  home.writeSession("main", "one", 4);
  home.writeSession("main", "two", 0);
  home.writeSession("side", "three", 1);
  app = await App.open(home);
  await app.press("Analyse");
  await eventually("the analysis is done", async () => (await app.phase()) === "done");
  assert.match(await app.inSessions("[data-phase]").getText(), /^Done\s*3 sessions, 2 agents/);
  const { main, side } = await app.agents();
  assert.deepEqual([main.total, side.total], ["2 sessions", "1 session"]);
});

test("the page cancels an analysis", async () => {
  home.writeSession("main", "s0", 30, 1_000_000);
  // More than the page asks for at once.
  for (let copy = 1; copy < 120; copy++) home.linkSession("main", "s0", `s${copy}`);
  app = await App.open(home);
  await app.press("Analyse");
  await app.press("Cancel");
  await eventually("the analysis is cancelled", async () => (await app.phase()) === "cancelled");
  assert.equal((await app.invoke("get_sidecar_info")).openHandles, 0);
});

test("a page that knows a handle only after its reply loses no event of a thousand short streams", async () => {
  home.writeSession("main", "one", 1);
  app = await App.open(home);
  const seen = await app.inPage(`
    const known = new Set();
    const seen = { streams: 0, unknown: 0, gaps: 0 };
    const next = new Map();
    let ended = () => {};
    for (const event of ["sessions:chunk", "sessions:done"]) {
      await listen(event, ({ payload }) => {
        if (!known.has(payload.handleId)) return void seen.unknown++;
        const due = next.get(payload.handleId) ?? 0;
        if (payload.seq !== due) seen.gaps++;
        next.set(payload.handleId, due + 1);
        if (event === "sessions:done") ended(payload.handleId);
      });
    }
    for (; seen.streams < 1000; seen.streams++) {
      const handle = await invoke("analyze_sessions_stream");
      const end = new Promise((resolve, reject) => {
        ended = resolve;
        setTimeout(reject, ${WITHIN_MS}, "stream " + seen.streams + " has no end; " + JSON.stringify(seen));
      });
      known.add(handle);
      await end;
    }
    return seen;`);
  assert.deepEqual(seen, { streams: 1000, unknown: 0, gaps: 0 });
});

test("what a page asked for before it was loaded anew is cancelled, and holds nothing up", async () => {
  home.writeSession("main", "long", 400, 262_144);
  app = await App.open(home);
  const pid = await app.sidecarPid();
  await app.driver.executeScript(`
    for (let i = 0; i < 5; i++) window.__TAURI_INTERNALS__.invoke("preview_session_stream", { agentId: "main", sessionId: "long" });
    location.reload();`);
  await app.loaded();
  const since = Date.now();
  await eventually("no stream is left", async () => (await app.invoke("get_sidecar_info")).openHandles === 0);
  assert.ok(Date.now() - since < 10_000, "a handle that nobody takes is waited for, for 30 s");
  assert.equal(await app.sidecarPid(), pid);
});

test("a page that stands still costs no memory, and gets all events when it goes on", async () => {
  home.writeSession("main", "long", 800, 262_144);
  app = await App.open(home);
  const appPid = parentOf(await app.sidecarPid());
  const pids = [appPid, webProcessOf(appPid)];
  const idle = pids.map(residentMiB);
  await app.driver.executeScript(`
    const tauri = window.__TAURI_INTERNALS__;
    window.seen = { messages: 0, gaps: 0, next: 0 };
    const listen = (event, take) =>
      tauri.invoke("plugin:event|listen", { event, target: { kind: "Any" }, handler: tauri.transformCallback(take) });
    listen("session-preview:page", ({ payload }) => {
      window.seen.gaps += payload.seq !== window.seen.next++;
      window.seen.messages += payload.messages.length;
      if (payload.seq === 10) for (const until = Date.now() + ${STANDS_STILL_MS}; Date.now() < until; );
    });
    listen("session-preview:done", ({ payload }) => (window.seen.total = payload.totalMessages))
      .then(() => tauri.invoke("preview_session_stream", { agentId: "main", sessionId: "long" }));`);
  // In this time all 200 MiB would come.
  await delay(STANDS_STILL_MS - 1000);
  const grown = pids.map((pid, index) => residentMiB(pid) - idle[index]);
  assert.ok(Math.max(...grown) < 64, `app and page have grown by ${grown} MiB`);
  const seen = await eventually("the stream is done", async () => {
    const seen = await app.driver.executeScript("return window.seen");
    return seen.total !== undefined && seen;
  });
  assert.deepEqual([seen.total, seen.messages, seen.gaps], [800, 800, 0]);
});

const HOST = `
import json, sys
from tests.remote.sshd import Sshd

with Sshd(key_types=("ed25519",)) as host:
    print(json.dumps({"port": host.port, "user": host.user, "key": str(host.client_key)}), flush=True)
    sys.stdin.read()
`;

/** An sshd that this home has as \`ssh:new\` and doesn't know yet, for as long as \`use\` takes. */
async function withNewHost(run) {
  const python = path.join(path.dirname(SIDECAR), "python");
  const cwd = path.resolve(import.meta.dirname, "../../..");
  const sshd = spawn(python, ["-c", HOST], { cwd, stdio: ["pipe", "pipe", "inherit"] });
  try {
    const { port, user, key } = JSON.parse((await once(sshd.stdout, "data"))[0]);
    const host = {
      id: "ssh:new",
      label: "New",
      host: "127.0.0.1",
      port,
      username: user,
      authMethod: "key",
      keyPath: key,
    };
    await app.invoke("upsert_ssh_host", { host });
    await run();
  } finally {
    sshd.stdin.end();
    if (sshd.exitCode === null) await once(sshd, "exit");
  }
}

function xdotool(...args) {
  try {
    return execFileSync("xdotool", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch (error) {
    if (error.code === "ENOENT") throw error;
    return ""; // It has found no window.
  }
}

for (const [key, answer] of [
  ["Return", "trusts"],
  ["Escape", "does not trust"],
]) {
  test(`a user who ${answer} a new host says so in a dialog of the system`, async () => {
    app = await App.open(home);
    await withNewHost(async () => {
      await app.driver.executeScript(`
        window.__TAURI_INTERNALS__.invoke("remote_analyze_sessions_stream", { hostId: "ssh:new" })
          .then((handle) => (window.reply = { handle }), (error) => (window.reply = { error }));`);
      const dialog = await eventually(
        "the dialog is there",
        () => xdotool("search", "--onlyvisible", "--name", "^Unknown host$") || false,
      );
      // It takes keys only when it is drawn.
      const reply = await eventually("it is answered", async () => {
        xdotool("windowfocus", dialog, "key", "--window", dialog, key);
        return (await app.driver.executeScript("return window.reply")) ?? undefined;
      });
      if (key === "Return") assert.match(reply.handle, /^[0-9a-f-]{36}$/);
      else assert.match(reply.error, /^host key verification failed/);
    });
  });
}

test("a sidecar that was killed ends its streams and comes back", async () => {
  home.writeSession("main", "long", 400, 262_144);
  app = await App.open(home);
  const pid = await app.sidecarPid();
  await app.inPage(`
    window.seen = [];
    for (const event of ["session-preview:page", "session-preview:done", "sessions:error", "sidecar:status"]) {
      await listen(event, ({ payload }) => window.seen.push([event, payload.seq, payload.state]));
    }
    window.handle = await invoke("preview_session_stream", { agentId: "main", sessionId: "long" });`);
  process.kill(pid, "SIGKILL");
  const seen = await eventually("the page was told", async () => {
    const seen = await app.inPage("return window.seen");
    return seen.some(([event, , state]) => event === "sidecar:status" && state === "ready") && seen;
  });
  assert.notEqual(await app.sidecarPid(), pid);
  const ofStream = seen.filter(([event]) => event !== "sidecar:status");
  assert.deepEqual(
    ofStream.slice(-2).map(([event]) => event),
    ["sessions:error", "session-preview:done"],
  );
  assert.deepEqual(
    ofStream.map(([, seq]) => seq),
    ofStream.map((_, index) => index),
  );
});

test("no sidecar is left when the app is killed", async () => {
  home.writeSession("main", "long", 400, 262_144);
  app = await App.open(home);
  const pid = await app.sidecarPid();
  const appPid = parentOf(pid);
  // It has work to do, and nobody to give it to.
  await app.inPage(`await invoke("preview_session_stream", { agentId: "main", sessionId: "long" });`);
  assert.ok(runs(pid) && runs(appPid));
  process.kill(appPid, "SIGKILL");
  await eventually("the sidecar has ended", () => !runs(pid));
});

test("no sidecar is left when the app is closed", async () => {
  app = await App.open(home);
  const pid = await app.sidecarPid();
  await app.driver.close();
  await eventually("the sidecar has ended", () => !runs(pid));
});
