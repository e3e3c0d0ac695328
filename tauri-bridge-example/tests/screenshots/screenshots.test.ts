/** `npm run screenshots`: the pictures of the README, of the real page with real sidecars. */

import { execFileSync, spawnSync } from "node:child_process";
import path from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, it } from "vitest";
import { buildPage, FOLDER, launchBrowser, openPage } from "../real/browserPage";
import { ask, writeHomes, type Homes } from "../real/sidecar";

const DOCS = path.join(FOLDER, "docs");
let homes: Homes;
let browser: Browser;

beforeAll(async () => {
  homes = writeHomes();
  buildPage();
  browser = await launchBrowser();
});

afterAll(async () => {
  await browser.close();
  homes.remove();
});

async function shoot(page: Page, name: string) {
  const file = path.join(DOCS, `${name}.png`);
  // Nothing that blinks or moves.
  await page.screenshot({ path: file, animations: "disabled", caret: "hide" });
  // Smaller, where pngquant is at hand.
  if (spawnSync("pngquant", ["--version"]).status === 0) {
    execFileSync("pngquant", ["--force", "--skip-if-larger", "--ext", ".png", "128", file]);
  }
}

async function analysed(page: Page) {
  await page.locator(".middle .button.wide").click();
  await page.locator('.middle [data-phase="done"]').waitFor();
  await page.locator('[data-agent="main"] button').click();
  await page.locator(".grid-body .row").nth(2).click();
  await page.locator('.preview [data-phase="done"]').waitFor();
}

it("the start, an analysis and a deletion", async () => {
  const light = await openPage(browser, homes.sample, { colorScheme: "light" });
  await shoot(light.page, "start");
  await analysed(light.page);
  await shoot(light.page, "light");
  for (const row of [0, 1, 3]) {
    const box = light.page.locator(".grid-body .row:has(input:enabled)").nth(row).locator("input");
    await box.check();
  }
  await light.page.getByRole("button", { name: "Delete selected" }).click();
  await light.page.getByRole("alertdialog").waitFor();
  await shoot(light.page, "delete");
  await light.close();
});

it("dark colours", async () => {
  const dark = await openPage(browser, homes.sample, { colorScheme: "dark" });
  await analysed(dark.page);
  await shoot(dark.page, "dark");
  await dark.close();
});

it("Chinese", async () => {
  const chinese = await openPage(browser, homes.sample, { locale: "zh-CN" });
  await analysed(chinese.page);
  await shoot(chinese.page, "chinese");
  await chinese.close();
});

it("an analysis that runs", async () => {
  const running = await openPage(browser, homes.huge);
  await running.page.locator(".middle .button.wide").click();
  await running.page.locator(".grid-body .row").nth(2).waitFor();
  await shoot(running.page, "running");
  await running.close();
});

it("backups and errors", async () => {
  const backups = await openPage(browser, homes.sample);
  await backups.page.getByRole("tab", { name: "Backups" }).click();
  await backups.page.getByRole("button", { name: "Back up now" }).click();
  await backups.page.locator("tr[data-backup]").waitFor();
  await backups.page.getByRole("button", { name: "Restore …" }).click();
  await backups.page.getByRole("button", { name: "Restore", exact: true }).click();
  await backups.page.getByRole("button", { name: "Undo" }).waitFor();
  await shoot(backups.page, "backups");
  const [, first] = ask(homes.sample, "list_backups") as { path: string }[];
  execFileSync("sh", ["-c", 'printf x >> "$1/openclaw.json"', "sh", first!.path]);
  await backups.page.getByRole("button", { name: "Verify" }).last().click();
  await backups.page.getByRole("alert").waitFor();
  await shoot(backups.page, "damaged");
  await backups.page.evaluate(() =>
    (
      window as unknown as { __TAURI_INTERNALS__: { invoke: (method: string, params: object) => Promise<unknown> } }
    ).__TAURI_INTERNALS__.invoke("upsert_ssh_host", {
      host: { id: "ssh:lab", label: "Lab", host: "127.0.0.1", port: 1, username: "me", authMethod: "key" },
    }),
  );
  await backups.page.reload();
  await backups.page.locator('[data-host="ssh:lab"]').click();
  await backups.page.getByRole("alert").waitFor();
  await shoot(backups.page, "error");
  await backups.close();
});
