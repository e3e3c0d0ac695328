// Who uses a tree that is to be restored: the twin of sidecar/backup/in_use.py, which explains it.

import { spawnSync } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import process from "node:process";

import { LSOF_FILES, LSOF_MS } from "./backup_limits.mjs";
import { LOCK_STALE_MS, MAX_LOCK_BYTES } from "./limits.mjs";
import { isDatabaseName, sideFiles } from "./rules.mjs";
import { ifPossible, listNames, realPathOf, statusIfThere, statusThrough } from "./system_words.mjs";
import { decoded, encoded, isObject, joined } from "./text.mjs";
import { openToRead, walk } from "./tree.mjs";

const UNKNOWN_PROCESS = "a process that the system doesn't name";
const MAX_PID = 0x7fffffff;

/** The databases in the tree, as far as their names tell, relative to the top. */
export function* databasesBelow(root, selection, progress) {
    for (const { kind, path } of walk(root, selection)) {
        progress.step();
        if (kind === "file" && isDatabaseName(path)) {
            yield path;
        }
    }
}

/** Who uses the tree at `root`, a real folder, or one of these databases in it, each a sentence in bytes. */
export function usersOf(root, databases) {
    return [...new Set([...lockHolders(root), ...openers(watchedFiles(root, databases))])];
}

/** What nobody may have open, by device and inode: its full path, and the one to show. */
function watchedFiles(root, databases) {
    const watched = new Map();
    const watch = (fullPath, path) => {
        const status = ifPossible(() => statusThrough(fullPath));
        if (status !== null) {
            watched.set(`${status.dev} ${status.ino}`, { fullPath, path });
        }
    };
    for (const database of databases) {
        [database, ...sideFiles(database)].forEach((path) => watch(joined(root, path), path));
    }
    coordinators(root).forEach((path) => watch(path, path));
    return watched;
}

/** The databases that a gateway of this tree keeps locked for as long as it runs (2026.8.1 and later). */
function coordinators(root) {
    const digest = crypto.createHash("sha256").update(joined(root, "state/openclaw.sqlite"), "latin1").digest("hex");
    const ours = new RegExp(`^[^.].*\\.${digest.slice(0, 8)}\\.lock\\.sqlite$`);
    return [
        ...matching(root, [/^tmp$/, /^openclaw/, /^[^.].*\.lock\.sqlite$/]),
        ...temporaryFolders().flatMap((folder) => matching(folder, [/^openclaw-state-locks/, ours])),
    ];
}

/** The paths below `folder` whose names match a pattern each; what can't be listed has none. */
function matching(folder, [pattern, ...more]) {
    const names = (ifPossible(() => listNames(folder)) ?? []).filter((name) => pattern.test(name));
    const paths = names.map((name) => joined(folder, name));
    return more.length === 0 ? paths : paths.flatMap((path) => matching(path, more));
}

function temporaryFolders() {
    return [...new Set([encoded(os.tmpdir()), "/tmp"].map((path) => realPathOf(path)))]; // OpenClaw falls back on it
}

function openers(watched) {
    if (watched.size === 0) {
        return [];
    }
    return process.platform === "linux"
        ? [...openInProc(watched), ...lockedInProc(watched)]
        : openByLsof([...watched.values()].map(({ fullPath }) => fullPath));
}

function openInProc(watched) {
    const users = [];
    for (const pid of listNames("/proc")) {
        if (!/^\d+$/.test(pid) || pid === String(process.pid)) {
            continue;
        }
        // None: it has ended, or is another user's.
        for (const name of ifPossible(() => listNames(`/proc/${pid}/fd`)) ?? []) {
            const status = ifPossible(() => statusThrough(`/proc/${pid}/fd/${name}`));
            const found = status === null ? undefined : watched.get(`${status.dev} ${status.ino}`);
            if (found !== undefined) {
                users.push(hasOpen(processOf(Number(pid)), found.path));
            }
        }
    }
    return users;
}

/** Of every user: SQLite holds a lock on a database in WAL mode for as long as it is connected to it. */
function lockedInProc(watched) {
    const users = [];
    for (const line of (readText("/proc/locks") ?? "").split("\n")) {
        const [, , , , pid, file] = line.replace("-> ", "").split(/ +/);
        const [, major, minor, inode] = /^([0-9a-f]+):([0-9a-f]+):(\d+)$/.exec(file ?? "") ?? [];
        const device = inode === undefined ? 0n : deviceOf(BigInt(`0x${major}`), BigInt(`0x${minor}`));
        const found = watched.get(`${device} ${inode}`);
        if (found !== undefined && Number(pid) !== process.pid) {
            users.push(hasOpen(processOf(Number(pid)), found.path));
        }
    }
    return users;
}

function deviceOf(major, minor) {
    return ((major & ~0xfffn) << 32n) | ((major & 0xfffn) << 8n) | ((minor & ~0xffn) << 12n) | (minor & 0xffn);
}

function openByLsof(paths) {
    const users = [];
    const giveUpAt = Date.now() + LSOF_MS;
    for (let start = 0; start < paths.length && Date.now() < giveUpAt; start += LSOF_FILES) {
        const given = ["-w", "-F", "pcn", "--", ...paths.slice(start, start + LSOF_FILES).map(decoded)];
        const options = { stdio: ["ignore", "pipe", "ignore"], encoding: "latin1", timeout: giveUpAt - Date.now() };
        const { stdout } = spawnSync("lsof", given, { ...options, env: { PATH: `${process.env.PATH}:/usr/sbin` } });
        let shown = UNKNOWN_PROCESS;
        let pid = "";
        for (const line of (stdout ?? "").split("\n")) {
            const [kind, text] = [line.slice(0, 1), line.slice(1)];
            if (kind === "p") {
                [pid, shown] = [text, `process ${text}`];
            } else if (kind === "c") {
                shown += ` (${text})`;
            } else if (kind === "n" && pid !== String(process.pid)) {
                users.push(hasOpen(shown, text));
            }
        }
    }
    return users;
}

function* lockHolders(root) {
    const inRoot = [
        ...matching(root, [/^gateway\..*\.lock$/]),
        ...matching(root, [/^tmp$/, /^openclaw/, /^[^.].*\.lock$/]),
    ];
    for (const path of inRoot) {
        const holder = holderOf(path, lockAt(path));
        if (holder !== null) {
            yield `${holder} holds the gateway's lock ${path.slice(joined(root, "").length)}`;
        }
    }
    for (const folder of temporaryFolders()) {
        for (const path of matching(folder, [/^openclaw/, /^gateway\..*\.lock$/])) {
            const lock = lockAt(path);
            const holder = isAbout(lock, root) ? holderOf(path, lock) : null;
            if (holder !== null) {
                yield `${holder} holds the gateway's lock ${path}`;
            }
        }
    }
    for (const name of [/^[^.].*\.jsonl\.lock$/, /^sessions\.json\.lock$/]) {
        for (const path of matching(root, [/^agents$/, /^[^.]/, /^sessions$/, name])) {
            const holder = holderOf(path, lockAt(path));
            if (holder !== null) {
                yield `${holder} holds the lock ${path.slice(joined(root, "").length)}`;
            }
        }
    }
}

/** What a lock says; nothing if it can't be read, or is just being written. */
function lockAt(path) {
    const fd = ifPossible(() => openToRead(path));
    if (fd === null) {
        return {};
    }
    try {
        const data = Buffer.alloc(MAX_LOCK_BYTES);
        const lock = JSON.parse(data.subarray(0, fs.readSync(fd, data, 0, data.length, 0)).toString());
        return isObject(lock) ? lock : {};
    } catch {
        return {};
    } finally {
        fs.closeSync(fd);
    }
}

/** Whether a lock that lies elsewhere is of a gateway whose state is in the tree at `root`. */
function isAbout(lock, root) {
    return [lock.stateDir, lock.configPath].some((path) => {
        const real = typeof path === "string" && path !== "" ? realPathOf(encoded(path)) : null;
        return real !== null && (real === root || real.startsWith(joined(root, "")));
    });
}

/** Who holds the lock file at `path`, which says `lock`; null if it is gone or stale. */
function holderOf(path, { pid, startTime, starttime }) {
    const status = ifPossible(() => statusIfThere(path));
    if (status === null || !status.isFile()) {
        return null;
    }
    if (!Number.isSafeInteger(pid) || pid <= 0) {
        const shown = typeof pid === "string" || typeof pid === "number" ? encoded(String(pid)) : "";
        const holder = shown ? `process ${shown}` : "an unknown process";
        return Date.now() - Number(status.mtimeMs) < LOCK_STALE_MS ? holder : null;
    }
    return isRunning(pid, startTime ?? starttime) ? processOf(pid) : null;
}

function isRunning(pid, started) {
    if (pid > MAX_PID) {
        return false;
    }
    try {
        process.kill(pid, 0);
    } catch (error) {
        if (error.code === "ESRCH") {
            return false; // else it runs, for another user
        }
    }
    const now = process.platform === "linux" && Number.isInteger(started) ? startedAt(pid) : null;
    return now === null || now === started;
}

/** When a process started, in the system's ticks; another one may have its number by now. */
function startedAt(pid) {
    const text = readText(`/proc/${pid}/stat`);
    const ticks = Number(text?.slice(text.lastIndexOf(")") + 1).trim().split(/\s+/)[19] ?? NaN);
    return Number.isInteger(ticks) ? ticks : null;
}

function processOf(pid) {
    if (!(pid > 0)) {
        return UNKNOWN_PROCESS; // an open file's own lock, or a process in another container
    }
    const name = readText(`/proc/${pid}/comm`);
    return name === null ? `process ${pid}` : `process ${pid} (${name.trim()})`;
}

const hasOpen = (who, path) => `${who} has ${path} open`;

function readText(path) {
    try {
        return fs.readFileSync(path, "latin1");
    } catch {
        return null;
    }
}
