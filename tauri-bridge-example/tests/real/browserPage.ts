/** The built page in Debian's Chromium, with real sidecars behind its relay. */

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { preview, type PreviewServer } from "vite";
import { relayPlugin } from "../../relay/vitePlugin";
import { RELAY_PATH } from "../../src/browser/relay";
import { COMMAND, environment } from "./sidecar";

export const FOLDER = path.resolve(import.meta.dirname, "../..");
const CHROMIUM = "/usr/bin/chromium";

/** As `npm run build:browser` does: a build inside of a test would be one of React for development. */
export function buildPage(mode: "browser" | "production" = "browser"): void {
  const vite = path.join(FOLDER, "node_modules/vite/bin/vite.js");
  execFileSync(process.execPath, [vite, "build", "--mode", mode, "--logLevel", "warn"], {
    cwd: FOLDER,
    env: { ...process.env, NODE_ENV: "production" },
  });
}

export async function launchBrowser(): Promise<Browser> {
  if (!existsSync(CHROMIUM)) throw new Error("Debian's package chromium is needed");
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
}

/** What the page measures of itself, from its first moment on. */
export interface Measured {
  longTasksMs: number[];
  layoutShift: number;
  /** What moved. */
  shifted: string[];
}

/** Not among the types of the DOM. */
interface Shift extends PerformanceEntry {
  value: number;
  hadRecentInput: boolean;
  sources: { node: Node | null; previousRect: DOMRectReadOnly; currentRect: DOMRectReadOnly }[];
}

export interface OpenPage {
  page: Page;
  server: PreviewServer;
  /** What the page has written to the console as an error, or thrown. */
  errors: string[];
  measured: () => Promise<Measured>;
  close: () => Promise<void>;
}

/** The page, with sidecars of that home. */
export async function openPage(browser: Browser, home: string, options: BrowserContextOptions = {}): Promise<OpenPage> {
  const server = await preview({
    configFile: false,
    root: FOLDER,
    logLevel: "warn",
    build: { outDir: "dist-browser" },
    preview: { host: "127.0.0.1", port: 0 },
    plugins: [relayPlugin({ path: RELAY_PATH, command: COMMAND, env: environment(home) })],
  });
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1360, height: 820 }, ...options });
  const page = await context.newPage();
  const errors: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(error.message));
  await page.addInitScript(() => {
    const measured: Measured = { longTasksMs: [], layoutShift: 0, shifted: [] };
    Object.assign(window, { measured });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) measured.longTasksMs.push(Math.round(entry.duration));
    }).observe({ type: "longtask", buffered: true });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const shift = entry as Shift;
        if (shift.hadRecentInput) continue;
        measured.layoutShift += shift.value;
        for (const { node, previousRect, currentRect } of shift.sources) {
          // A number or a label that changes in its place.
          if (previousRect.x === currentRect.x && previousRect.y === currentRect.y) continue;
          const from = `${String(previousRect.x)},${String(previousRect.y)}`;
          measured.shifted.push(
            `${node?.nodeName ?? ""} from ${from} to ${String(currentRect.x)},${String(currentRect.y)}`,
          );
        }
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  await page.goto(server.resolvedUrls!.local[0]!);
  await page.locator(".app").waitFor();
  return {
    page,
    server,
    errors,
    measured: () => page.evaluate(() => (window as unknown as { measured: Measured }).measured),
    close: async () => {
      await context.close();
      await server.close();
    },
  };
}
