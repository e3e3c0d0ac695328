/** Real sidecars, and homes for them. */

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { expect } from "vitest";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const BIN = path.join(ROOT, ".venv/bin");

export const COMMAND = process.env["CLAWPAL_SIDECAR"] ?? path.join(BIN, "clawpal-sidecar");

export interface Homes {
  /** Sessions of both eras, of a few agents. */
  sample: string;
  /** Fewer sessions than make a stream worth while. */
  small: string;
  /** One agent with 20,000 sessions, and so much to say of each that an analysis takes seconds. */
  large: string;
  /** The same with 50,000. */
  huge: string;
  /** One session of 100,000 messages. */
  long: string;
  remove: () => void;
}

export function writeHomes(): Homes {
  const folder = mkdtempSync(path.join(tmpdir(), "page-homes-"));
  const env = { ...process.env, PYTHONPATH: ROOT };
  execFileSync(path.join(BIN, "python"), [path.join(import.meta.dirname, "write_homes.py"), folder], { env });
  return {
    sample: path.join(folder, "sample"),
    small: path.join(folder, "small"),
    large: path.join(folder, "large"),
    huge: path.join(folder, "huge"),
    long: path.join(folder, "long"),
    remove: () => {
      rmSync(folder, { recursive: true });
    },
  };
}

/** What a sidecar of that home is started with: no other directory of OpenClaw is named there. */
export function environment(home: string): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(OPENCLAW|CLAWPAL)/.test(name));
  return { ...Object.fromEntries(kept), HOME: home };
}

/** The answer of a command that is asked on the command line. */
export function ask(home: string, method: string): unknown {
  const input = `${JSON.stringify({ jsonrpc: "2.0", id: 1, method })}\n`;
  const output = execFileSync(COMMAND, { env: environment(home), input, maxBuffer: 64 * 1024 * 1024 });
  return (JSON.parse(output.toString()) as { result: unknown }).result;
}

export async function processEnds(pid: number): Promise<void> {
  await expect.poll(() => existsSync(`/proc/${String(pid)}`), { timeout: 10_000 }).toBe(false);
}

/** How many bytes the process has written so far, to files and pipes. */
export function bytesWritten(pid: number): number {
  const written = /^wchar: (\d+)$/m.exec(readFileSync(`/proc/${String(pid)}/io`, "utf8"));
  return Number(written![1]);
}

/** Another process has the database open, until the function that this gives is called. */
export async function openDatabase(file: string): Promise<() => Promise<void>> {
  const code =
    "import sqlite3, sys; database = sqlite3.connect(sys.argv[1]); " +
    "database.execute('SELECT * FROM sqlite_master').fetchall(); print('open', flush=True); sys.stdin.read()";
  const child = spawn(path.join(BIN, "python"), ["-c", code, file], { stdio: ["pipe", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return async () => {
    child.stdin.end();
    if (child.exitCode === null) await once(child, "exit");
  };
}

/** The same private key beside it, behind a passphrase. */
export function lockedCopy(keyPath: string, passphrase: string): string {
  const copy = `${keyPath}-locked`;
  copyFileSync(keyPath, copy);
  chmodSync(copy, 0o600);
  execFileSync("ssh-keygen", ["-q", "-p", "-P", "", "-N", passphrase, "-f", copy]);
  return copy;
}

export interface Host {
  host: string;
  port: number;
  username: string;
  keyPath: string;
  fingerprints: string[];
  /** It loses its power. */
  kill: () => Promise<void>;
  end: () => Promise<void>;
}

/** A real sshd on this machine, with sessions of both eras. */
export async function startHost(): Promise<Host> {
  const script = path.join(import.meta.dirname, "host.py");
  const env = { ...process.env, PYTHONPATH: ROOT };
  const child = spawn(path.join(BIN, "python"), [script], { env, stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const { value } = await lines.next();
  if (value === undefined) throw new Error("the host doesn't start");
  return {
    ...(JSON.parse(value) as Omit<Host, "kill" | "end">),
    kill: async () => {
      child.stdin.write("kill\n");
      expect((await lines.next()).value).toBe("killed");
    },
    end: async () => {
      child.stdin.end();
      if (child.exitCode === null) await once(child, "exit");
    },
  };
}
