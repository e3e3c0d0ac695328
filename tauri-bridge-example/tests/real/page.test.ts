import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { chromium, type Browser, type Page } from "playwright-core";
import { build, preview, type PreviewServer } from "vite";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { AgentSessionAnalysis, BackupInfo, SidecarInfo } from "../../../protocol/types";
import { relayPlugin } from "../../relay/vitePlugin";
import { RELAY_PATH } from "../../src/browser/relay";
import { ask, bytesWritten, COMMAND, environment, processEnds, writeHomes, type Homes } from "./sidecar";

const FOLDER = path.resolve(import.meta.dirname, "../..");
const CHROMIUM = "/usr/bin/chromium";
/** 50,000 sessions, each with a model of 7,000 letters. */
const HUGE_ANALYSIS_BYTES = 350_000_000;

let homes: Homes;
let browser: Browser;
let server: PreviewServer | undefined;
let page: Page;
/** What the page has written to the console as an error, or thrown. */
let errors: string[];

beforeAll(async () => {
  if (!existsSync(CHROMIUM)) throw new Error("Debian's package chromium is needed");
  homes = writeHomes();
  await build({ root: FOLDER, mode: "browser", logLevel: "warn" });
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
});

afterAll(async () => {
  await browser.close();
  homes.remove();
});

beforeEach(async () => {
  errors = [];
  page = await browser.newPage();
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(error.message));
});

afterEach(async () => {
  await page.close();
  await server?.close();
  expect(errors).toEqual([]);
});

/** The built page, and sidecars of that home. */
async function openPage(home: string): Promise<void> {
  server = await preview({
    configFile: false,
    root: FOLDER,
    logLevel: "warn",
    build: { outDir: "dist-browser" },
    preview: { host: "127.0.0.1", port: 0 },
    plugins: [relayPlugin({ path: RELAY_PATH, command: COMMAND, env: environment(home) })],
  });
  await page.goto(server.resolvedUrls!.local[0]!);
  await section("Sessions").waitFor();
}

function section(name: string) {
  return page.getByRole("region", { name });
}

async function sidecarPid(): Promise<number> {
  const info = await page.evaluate(
    () =>
      (
        window as unknown as { __TAURI_INTERNALS__: { invoke: (method: string) => unknown } }
      ).__TAURI_INTERNALS__.invoke("get_sidecar_info") as Promise<SidecarInfo>,
  );
  return info.pid;
}

async function phaseIs(name: string, phase: string) {
  await section(name).locator(`[data-phase="${phase}"]`).waitFor();
}

/** The counters of each agent as the page shows them. */
async function shownAgents() {
  const agents = await section("Sessions").locator("[data-agent]").all();
  const count = async (agent: (typeof agents)[number], name: string) =>
    parseInt((await agent.locator(`[data-count="${name}"]`).innerText()).replaceAll(",", ""));
  return Promise.all(
    agents.map(async (agent) => ({
      agent: await agent.getAttribute("data-agent"),
      totalFiles: await count(agent, "total"),
      valuableCount: await count(agent, "valuable"),
      lowValueCount: await count(agent, "low_value"),
      emptyCount: await count(agent, "empty"),
    })),
  );
}

describe("an analysis", () => {
  it("shows for each agent what the command line says, and its sessions when it is opened", async () => {
    await openPage(homes.sample);
    await section("Sessions").getByRole("button", { name: "Analyse" }).click();
    await phaseIs("Sessions", "done");
    const analysis = ask(homes.sample, "analyze_sessions") as AgentSessionAnalysis[];
    const wanted = analysis.map(({ agent, totalFiles, valuableCount, lowValueCount, emptyCount }) => ({
      agent,
      totalFiles,
      valuableCount,
      lowValueCount,
      emptyCount,
    }));
    const byName = (one: { agent: string | null }, other: { agent: string | null }) =>
      String(one.agent).localeCompare(String(other.agent));
    expect((await shownAgents()).sort(byName)).toEqual(wanted.sort(byName));

    const research = analysis.find(({ agent }) => agent === "research")!;
    const item = section("Sessions").locator('[data-agent="research"]');
    await item.locator("summary").click();
    expect(research.sessions.length).toBeGreaterThan(100);
    await expect.poll(() => item.locator("tbody tr").count()).toBe(100);
    await item.getByRole("button", { name: "more" }).click();
    const ids = await item.locator("tbody tr td:first-child").allInnerTexts();
    expect(ids.sort()).toEqual(research.sessions.map(({ sessionId }) => sessionId).sort());
  });

  it("is cancelled in the middle, while an agent is open", async () => {
    await openPage(homes.huge);
    await section("Sessions").getByRole("button", { name: "Analyse" }).click();
    const main = section("Sessions").locator('[data-agent="main"]');
    await main.locator("summary").click();
    await main.locator("tbody tr").first().waitFor();
    expect(await section("Sessions").locator("[data-phase]").getAttribute("data-phase")).toBe("running");
    await section("Sessions").getByRole("button", { name: "Cancel" }).click();
    await phaseIs("Sessions", "cancelled");
    const [shown] = await shownAgents();
    expect(shown!.totalFiles).toBeGreaterThan(0);
    expect(shown!.totalFiles).toBeLessThan(50_000);
    expect(await main.getAttribute("data-done")).toBe("false");
    expect(await main.locator("tbody tr").count()).toBe(100);
  });

  it("can be started again while it runs", async () => {
    await openPage(homes.large);
    await section("Sessions").getByRole("button", { name: "Analyse" }).click();
    await section("Sessions").locator("[data-agent]").waitFor();
    await section("Sessions").getByRole("button", { name: "Start again" }).click();
    await phaseIs("Sessions", "done");
    expect(await shownAgents()).toMatchObject([{ agent: "main", totalFiles: 20_000 }]);
  });
});

it("a page that is busy holds the sidecar back, and can cancel afterwards", async () => {
  await openPage(homes.huge);
  const pid = await sidecarPid();
  const before = bytesWritten(pid);
  await section("Sessions").getByRole("button", { name: "Analyse" }).click();
  await section("Sessions").locator("[data-agent]").waitFor();
  // While a dialog is open, nothing else of the page runs.
  const opened = page.waitForEvent("dialog");
  const busy = page.evaluate(() => {
    alert("busy");
  });
  const dialog = await opened;
  let last = -1;
  await expect.poll(() => last === (last = bytesWritten(pid)), { interval: 500, timeout: 20_000 }).toBe(true);
  expect(last - before).toBeLessThan(HUGE_ANALYSIS_BYTES / 2);
  await dialog.accept();
  await busy;
  await section("Sessions").getByRole("button", { name: "Cancel" }).click();
  await phaseIs("Sessions", "cancelled");
});

describe("a backup", () => {
  it("shows how far it is, and is in the list afterwards", async () => {
    await openPage(homes.sample);
    const backups = section("Backups");
    await backups.getByText("There is no backup yet.").waitFor();
    // Every state that is shown, since the last ones are there for a moment only.
    const shown: string[] = [];
    await page.exposeFunction("saw", (text: string) => shown.push(text));
    await backups.locator("[data-phase]").evaluate((status) => {
      new MutationObserver(() => {
        void (window as unknown as { saw: (text: string | null) => unknown }).saw(status.textContent);
      }).observe(status, { characterData: true, childList: true, subtree: true });
    });
    await backups.getByRole("button", { name: "Back up" }).click();
    await phaseIs("Backups", "done");
    const listed = backups.getByRole("list", { name: "Backups" }).getByRole("listitem");
    await listed.waitFor();
    const [made] = ask(homes.sample, "list_backups") as [BackupInfo];
    expect(made.status).toBe("complete");
    expect(await listed.allInnerTexts()).toEqual([expect.stringContaining(made.name)]);
    await expect.poll(() => shown.at(-1)).toContain(`Done: ${made.name}`);
    expect(shown).toContainEqual(expect.stringMatching(/^Copying: [\d,]+ of [\d,]+ files, /));
  });

  it("is cancelled, and nothing is left of it", async () => {
    await openPage(homes.large);
    const backups = section("Backups");
    await backups.getByRole("button", { name: "Back up" }).click();
    await backups.getByRole("button", { name: "Cancel" }).click();
    await phaseIs("Backups", "cancelled");
    expect(ask(homes.large, "list_backups")).toEqual([]);
  });
});

it("a host that can't be reached is an error on the page, and this machine can be chosen again", async () => {
  await openPage(homes.sample);
  await page.evaluate(() =>
    (
      window as unknown as { __TAURI_INTERNALS__: { invoke: (method: string, params: object) => Promise<unknown> } }
    ).__TAURI_INTERNALS__.invoke("upsert_ssh_host", {
      host: { id: "ssh:none", label: "None", host: "127.0.0.1", port: 1, username: "me", authMethod: "key" },
    }),
  );
  await page.reload();
  await page.getByLabel("Machine").selectOption("ssh:none");
  await page.getByRole("banner").getByRole("alert").filter({ hasText: "refused" }).waitFor();
  await section("Sessions").getByRole("button", { name: "Analyse" }).click();
  await phaseIs("Sessions", "failed");
  await page.getByLabel("Machine").selectOption("This machine");
  await section("Sessions").getByRole("button", { name: "Analyse" }).click();
  await phaseIs("Sessions", "done");
});

describe("no sidecar is left", () => {
  it("when the page is closed in the middle of an analysis", async () => {
    await openPage(homes.large);
    const pid = await sidecarPid();
    await section("Sessions").getByRole("button", { name: "Analyse" }).click();
    await section("Sessions").locator("[data-agent]").waitFor();
    await page.close();
    await processEnds(pid);
  });

  it("when the page is loaded again, which has another", async () => {
    await openPage(homes.sample);
    const pid = await sidecarPid();
    await page.reload();
    await section("Sessions").waitFor();
    await processEnds(pid);
    expect(await sidecarPid()).not.toBe(pid);
  });

  it("when the server of the page is closed", async () => {
    await openPage(homes.sample);
    const pid = await sidecarPid();
    await server!.close();
    await processEnds(pid);
    await page.getByRole("alert").filter({ hasText: "The sidecar is gone" }).waitFor();
  });
});

it("a sidecar that dies is said on the page", async () => {
  await openPage(homes.sample);
  process.kill(await sidecarPid(), "SIGKILL");
  await page.getByRole("alert").filter({ hasText: "The sidecar is gone: it was ended by SIGKILL" }).waitFor();
});

it("the page of `npm run dev:browser` works too, in React's StrictMode", async () => {
  const vite = path.join(FOLDER, "node_modules/vite/bin/vite.js");
  const env = { ...environment(homes.sample), CLAWPAL_SIDECAR: COMMAND, NO_COLOR: "1" };
  const args = [vite, "--mode", "browser", "--port", "0"];
  const dev = spawn(process.execPath, args, { cwd: FOLDER, env, stdio: ["ignore", "pipe", "inherit"] });
  try {
    let output = "";
    while (!output.includes("Local:")) output += String(await once(dev.stdout, "data"));
    await page.goto(/Local:\s+(\S+)/.exec(output)![1]!);
    await section("Sessions").getByRole("button", { name: "Analyse" }).click();
    await phaseIs("Sessions", "done");
    const analysis = ask(homes.sample, "analyze_sessions") as AgentSessionAnalysis[];
    expect(await shownAgents()).toHaveLength(analysis.length);
  } finally {
    const pid = await sidecarPid();
    dev.kill();
    await once(dev, "exit");
    await processEnds(pid);
  }
});

it("the build for Tauri has nothing of the relay", async () => {
  await build({ root: FOLDER, logLevel: "warn" });
  const scripts = readdirSync(path.join(FOLDER, "dist/assets"), { encoding: "utf8" }).filter((name) =>
    name.endsWith(".js"),
  );
  expect(scripts.length).toBeGreaterThan(0);
  for (const name of scripts) {
    expect(readFileSync(path.join(FOLDER, "dist/assets", name), "utf8")).not.toContain("WebSocket");
  }
});
