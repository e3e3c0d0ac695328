// The built app in a real window, driven by tauri-driver and WebKitWebDriver, with a home of its own.
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Builder, By, Capabilities, until } from "selenium-webdriver";

export const FOLDER = path.resolve(import.meta.dirname, "../..");
export const TARGET = process.env.CARGO_TARGET_DIR ?? path.join(FOLDER, "target");
const APP = process.env.CLAWPAL_APP ?? path.join(TARGET, "debug/clawpal-example");
export const SIDECAR = process.env.CLAWPAL_SIDECAR ?? path.join(FOLDER, "../.venv/bin/clawpal-sidecar");
const POLL_MS = 20;
export const WITHIN_MS = 20_000;

/** Until `look` gives something else than false or undefined. */
export async function eventually(what, look) {
  const until = Date.now() + WITHIN_MS;
  while (Date.now() < until) {
    const found = await look();
    if (found !== false && found !== undefined) return found;
    await delay(POLL_MS);
  }
  throw new Error(`not within ${WITHIN_MS} ms: ${what}`);
}

export function runs(pid) {
  if (!existsSync(`/proc/${pid}/stat`)) return false;
  // The name in brackets may hold anything.
  const state = readFileSync(`/proc/${pid}/stat`, "utf8").split(")").pop().trim()[0];
  return state !== "Z" && state !== "X";
}

export function parentOf(pid) {
  return Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]);
}

export function residentMiB(pid) {
  return Math.round(Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024);
}

/** The process that runs the app's page. */
export function webProcessOf(appPid) {
  const found = readdirSync("/proc").find((pid) => {
    try {
      return readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("WebKitWebProces") && parentOf(pid) === appPid;
    } catch {
      return false; // It is no process, or has ended.
    }
  });
  return Number(found);
}

export class Home {
  path = mkdtempSync(path.join(tmpdir(), "clawpal window "));

  /** A transcript with so many messages of so many letters. */
  writeSession(agent, session, messages, letters = 600) {
    const folder = path.join(this.path, ".openclaw/agents", agent, "sessions");
    mkdirSync(folder, { recursive: true });
    const message = {
      type: "message",
      timestamp: "2024-05-01T10:00:00.000Z",
      message: { role: "user", content: "x".repeat(letters) },
    };
    const header = JSON.stringify({ type: "session", id: session });
    writeFileSync(
      path.join(folder, `${session}.jsonl`),
      `${header}\n${`${JSON.stringify(message)}\n`.repeat(messages)}`,
    );
  }

  /** Another session of the same text, which takes no time to write. */
  linkSession(agent, session, copy) {
    const folder = path.join(this.path, ".openclaw/agents", agent, "sessions");
    linkSync(path.join(folder, `${session}.jsonl`), path.join(folder, `${copy}.jsonl`));
  }

  remove() {
    // WebKit may be writing there still.
    rmSync(this.path, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
  }
}

/** A screen that nobody sees, for as long as it is open. */
export async function openScreen() {
  const server = spawn("Xvfb", ["-displayfd", "3", "-screen", "0", "1280x900x24", "-nolisten", "tcp"], {
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  const [number] = await once(server.stdio[3], "data");
  process.env.DISPLAY = `:${String(number).trim()}`;
  return async () => {
    server.kill();
    await once(server, "exit");
  };
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

export class App {
  /** The built app of that home; `program` and `sidecar` take the places of those that are built while it is developed. */
  static async open(home, { program = APP, sidecar = SIDECAR } = {}) {
    const app = new App();
    const [port, nativePort] = [await freePort(), await freePort()];
    app.webdriver = spawn("tauri-driver", ["--port", port, "--native-port", nativePort], {
      stdio: ["ignore", "inherit", "inherit"],
      env: {
        ...process.env,
        HOME: home.path,
        OPENCLAW_HOME: "",
        OPENCLAW_STATE_DIR: "",
        CLAWPAL_SIDECAR: sidecar,
        RUST_LOG: process.env.RUST_LOG ?? "warn",
        // tauri-driver writes one for each request before WebKitWebDriver listens.
        RUST_BACKTRACE: "0",
      },
    });
    const capabilities = new Capabilities({ browserName: "wry", "tauri:options": { application: program } });
    try {
      app.driver = await eventually("tauri-driver listens", async () => {
        if (app.webdriver.exitCode !== null) throw new Error("tauri-driver has ended");
        const session = new Builder().usingServer(`http://127.0.0.1:${port}`).withCapabilities(capabilities).build();
        return await Promise.resolve(session).catch((error) => {
          // It listens before WebKitWebDriver does, and then breaks the connection.
          if (/ECONNREFUSED|ECONNRESET|socket hang up/.test(String(error))) return false;
          throw error;
        });
      });
      await app.driver.manage().setTimeouts({ script: 300_000 });
      await app.loaded();
    } catch (error) {
      await app.close();
      throw error;
    }
    return app;
  }

  async loaded() {
    await eventually("the page is there", () =>
      this.driver
        .executeScript("return document.readyState === 'complete' && !!window.__TAURI_INTERNALS__ || undefined")
        .catch(() => false),
    );
  }

  /** Runs the body of an async function in the page, where `invoke` and `listen` are what `@tauri-apps/api` makes of Tauri's own. */
  async inPage(body, ...args) {
    const { value, error } = await this.driver.executeAsyncScript(
      `const done = arguments[arguments.length - 1];
       const tauri = window.__TAURI_INTERNALS__;
       const invoke = (command, args) => tauri.invoke(command, args);
       const listen = (event, take) =>
         invoke("plugin:event|listen", { event, target: { kind: "Any" }, handler: tauri.transformCallback(take) });
       (async (args) => { ${body} })(arguments[0]).then((value) => done({ value }), (error) => done({ error: String(error) }));`,
      args,
    );
    if (error !== undefined) throw new Error(error);
    return value;
  }

  invoke(command, args = {}) {
    return this.inPage("return invoke(args[0], args[1])", command, args);
  }

  inSessions(selector) {
    return this.driver.findElement(By.css(`section[aria-labelledby="sessions-title"] ${selector}`));
  }

  async press(name) {
    const button = By.xpath(`//section[@aria-labelledby="sessions-title"]//button[text()="${name}"]`);
    // A loaded page may not have drawn itself yet.
    await (await this.driver.wait(until.elementLocated(button), WITHIN_MS)).click();
  }

  async phase() {
    return await this.inSessions("[data-phase]").getAttribute("data-phase");
  }

  /** What the page shows of each agent, by its name: the texts that have a `data-count`. */
  async agents() {
    const shown = {};
    for (const agent of await this.driver.findElements(By.css("[data-agent]"))) {
      const counts = {};
      for (const count of await agent.findElements(By.css("[data-count]"))) {
        counts[await count.getAttribute("data-count")] = await count.getText();
      }
      shown[await agent.getAttribute("data-agent")] = counts;
    }
    return shown;
  }

  async sidecarPid() {
    return (await this.invoke("get_sidecar_info")).pid;
  }

  async close() {
    await Promise.resolve(this.driver?.quit()).catch(() => {});
    if (this.webdriver.exitCode === null) {
      this.webdriver.kill();
      await once(this.webdriver, "exit");
    }
  }
}
