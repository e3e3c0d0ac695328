// The app as it is installed: the package that "make app" has built, unpacked, with the sidecar in it and no other.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { App, FOLDER, Home, SIDECAR, TARGET, eventually, openScreen } from "./app.js";

const PACKAGES = path.join(TARGET, "release/bundle/deb");

let home;
let file;
let unpacked;
let bundled;
let closeScreen;

before(async () => {
  closeScreen = await openScreen();
  home = new Home();
  unpacked = mkdtempSync(path.join(tmpdir(), "clawpal package "));
  const packages = existsSync(PACKAGES) ? readdirSync(PACKAGES).filter((name) => name.endsWith(".deb")) : [];
  assert.equal(packages.length, 1, `"make app" leaves one package in ${PACKAGES}`);
  file = path.join(PACKAGES, packages[0]);
  execFileSync("dpkg-deb", ["--extract", file, unpacked]);
  bundled = path.join(unpacked, "usr/lib/ClawPal Example/clawpal-sidecar/clawpal-sidecar");
});

after(async () => {
  home.remove();
  rmSync(unpacked, { recursive: true });
  await closeScreen();
});

/** What the sidecar of that file answers on the command line. */
function ask(program, method) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(OPENCLAW|CLAWPAL)/.test(name));
  const env = { ...Object.fromEntries(kept), HOME: path.join(home.path, "sample") };
  const input = `${JSON.stringify({ jsonrpc: "2.0", id: 1, method })}\n`;
  return JSON.parse(execFileSync(program, { env, input, maxBuffer: 64 * 1024 * 1024 })).result;
}

test("what the package needs is in Debian, or is in it", () => {
  const needed = String(execFileSync("dpkg-deb", ["--field", file, "Depends"])).trim();
  for (const name of needed.split(", ")) {
    const status = execFileSync("dpkg-query", ["--show", "--showformat=${Status}", name.split(" ")[0]]);
    assert.match(String(status), / installed$/, name);
  }
});

test("the installed app shows the counts that the command line tells, of both eras, by the sidecar in its package", async () => {
  execFileSync(path.join(path.dirname(SIDECAR), "python"), ["tests/real/write_homes.py", home.path, "sample"], {
    cwd: FOLDER,
    env: { ...process.env, PYTHONPATH: path.dirname(FOLDER) },
  });
  const analysis = ask(SIDECAR, "analyze_sessions");
  const ageless = (agents) =>
    agents.map((agent) => ({ ...agent, sessions: agent.sessions.map((session) => ({ ...session, ageDays: 0 })) }));
  assert.deepEqual(ageless(ask(bundled, "analyze_sessions")), ageless(analysis));
  assert.deepEqual(
    new Set(analysis.flatMap(({ sessions }) => sessions.map(({ store }) => store))),
    new Set(["jsonl", "sqlite"]),
  );

  const app = await App.open(
    { path: path.join(home.path, "sample") },
    {
      program: path.join(unpacked, "usr/bin/clawpal-example"),
      sidecar: "",
    },
  );
  try {
    assert.equal(readlinkSync(`/proc/${await app.sidecarPid()}/exe`), bundled);
    await app.press("Analyse");
    await eventually("the analysis is done", async () => (await app.phase()) === "done");
    const shown = await app.agents();
    assert.equal(Object.keys(shown).length, analysis.length);
    for (const agent of analysis) {
      const { total, valuable, low_value, empty } = shown[agent.agent];
      assert.deepEqual(
        { total, valuable, low_value, empty },
        {
          total: `${agent.totalFiles} sessions`,
          valuable: `${agent.valuableCount}`,
          low_value: `${agent.lowValueCount}`,
          empty: `${agent.emptyCount}`,
        },
      );
    }
  } finally {
    await app.close();
  }
});
