// Needs a screen (xvfb-run), tauri-driver, WebKitWebDriver, and the example app, built: see ../../README.md.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { By } from "selenium-webdriver";
import { App, Home, WITHIN_MS, eventually, parentOf, runs } from "./app.js";

let home;
let app;

beforeEach(() => {
  home = new Home();
});

afterEach(async () => {
  await app?.close();
  app = undefined;
  home.remove();
});

const inSessions = (selector) => app.driver.findElement(By.css(`section[aria-labelledby="sessions-title"] ${selector}`));

async function press(name) {
  await app.driver.findElement(By.xpath(`//section[@aria-labelledby="sessions-title"]//button[text()="${name}"]`)).click();
}

async function phase() {
  return await inSessions("[role=status]").getAttribute("data-phase");
}

test("the page shows what an analysis counts", async () => {
  home.writeSession("main", "one", 4);
  home.writeSession("main", "two", 0);
  home.writeSession("side", "three", 1);
  app = await App.open(home);
  await press("Analyse");
  await eventually("the analysis is done", async () => (await phase()) === "done");
  assert.match(await inSessions("[role=status]").getText(), /^Done: 3 sessions of 2 agents/);
  const counts = {};
  for (const agent of await app.driver.findElements(By.css("[data-agent]"))) {
    counts[await agent.getAttribute("data-agent")] = await agent.findElement(By.css("[data-count=total]")).getText();
  }
  assert.deepEqual(counts, { main: "2 of 2", side: "1 of 1" });
});

test("the page cancels an analysis", async () => {
  for (let session = 0; session < 12; session++) home.writeSession("main", `s${session}`, 60, 1_000_000);
  app = await App.open(home);
  await press("Analyse");
  await press("Cancel");
  await eventually("the analysis is cancelled", async () => (await phase()) === "cancelled");
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

test("a page that stands still gets all events when it goes on", async () => {
  home.writeSession("main", "long", 400, 262_144);
  app = await App.open(home);
  const messages = await app.inPage(`
    let messages = 0;
    let next = 0;
    let last;
    await listen("session-preview:page", ({ payload }) => {
      if (payload.seq !== next++) throw new Error("a gap");
      messages += payload.messages.length;
      // Twice it doesn't go on for a while.
      if (payload.seq === 5 || payload.seq === 150) for (const until = Date.now() + 1500; Date.now() < until; );
    });
    const ended = new Promise((resolve) => listen("session-preview:done", ({ payload }) => resolve(payload.totalMessages)));
    await invoke("preview_session_stream", { agentId: "main", sessionId: "long" });
    return [await ended, messages];`);
  assert.deepEqual(messages, [400, 400]);
});

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
  const other = await app.sidecarPid();
  assert.notEqual(other, pid);
  const seen = await eventually("the page was told", async () => {
    const seen = await app.inPage("return window.seen");
    return seen.some(([event, , state]) => event === "sidecar:status" && state === "ready") && seen;
  });
  const ofStream = seen.filter(([event]) => event !== "sidecar:status");
  assert.deepEqual(ofStream.slice(-2).map(([event]) => event), ["sessions:error", "session-preview:done"]);
  assert.deepEqual(ofStream.map(([, seq]) => seq), ofStream.map((_, index) => index));
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
