// A database's files, looked at from outside: the twin of sidecar/stores/sqlite_files.py.

import fs from "node:fs";
import os from "node:os";

import { system, unreadable } from "./errors.mjs";
import { SETTLED_MS } from "./limits.mjs";
import { asPath, encoded } from "./text.mjs";

const MOUNTS = "/proc/self/mountinfo";
// File systems on which another kernel may hold the database open: neither its locks nor its -shm are ours to see.
const SHARED_FILE_SYSTEMS = /^(?:9p|afs|ceph|cifs|drvfs|lustre|nfs|nfs4|prl_fs|smb3|smbfs|vboxsf|virtiofs)$|^fuse\./;

/** How the file at `path` stands; null if there is none. */
export function stampOf(path) {
    let found;
    try {
        found = system(path, () => fs.statSync(asPath(path), { bigint: true }));
    } catch (error) {
        if (error.code === "ENOENT") {
            return null;
        }
        throw error;
    }
    if (!found.isFile()) {
        throw unreadable("not a regular file");
    }
    const state = `${found.ino} ${found.size} ${found.mtimeNs}`;
    return { state, sizeBytes: Number(found.size), modifiedAtMs: Number(found.mtimeNs / 1_000_000n) };
}

/** How a database and the files beside it stand. Never opened here: that would drop SQLite's locks (FIELD-NOTES). */
export function lookAt(path) {
    const [database, wal, shm, journal] = ["", "-wal", "-shm", "-journal"].map((suffix) => stampOf(path + suffix));
    return { database, wal, shm, journal };
}

export const holds = (stamp) => stamp !== null && stamp.sizeBytes > 0;
export const isSame = (one, other) => one?.state === other?.state;

export function isSameLook(one, other) {
    return ["database", "wal", "shm", "journal"].every((name) => isSame(one[name], other[name]));
}

/** How a database may be read, where no other kernel has it. */
export function wayIn({ wal, shm, journal }) {
    if (holds(journal) || (holds(wal) && shm === null)) {
        return "copy"; // to be recovered there, and only there
    }
    return wal !== null && shm !== null ? "shared" : "alone";
}

/** Whether a change from now on would show: the clock of the file system moves in steps of some milliseconds. */
export function isSettled({ database, journal }) {
    const now = Date.now();
    return [database, journal].every((stamp) => stamp === null || Math.abs(now - stamp.modifiedAtMs) > SETTLED_MS);
}

export function isOnSharedFileSystem(path) {
    let mounts;
    try {
        mounts = fs.readFileSync(MOUNTS, "latin1");
    } catch {
        return false; // not Linux
    }
    const device = BigInt(system(path, () => fs.statSync(asPath(path), { bigint: true })).dev);
    const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
    const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
    const line = mounts.split("\n").find((mount) => mount.split(" ", 3)[2] === `${major}:${minor}`);
    const kind = line?.split(" - ")[1]?.split(" ", 1)[0];
    return kind !== undefined && SHARED_FILE_SYSTEMS.test(kind);
}

/** Copy what `look` found to `copy`; false if it changed meanwhile, so that the copy is of no one state. */
export function copyDatabase(path, look, copy) {
    const stamps = { "": look.database, "-wal": look.wal, "-journal": look.journal };
    const neededBytes = Object.values(stamps).reduce((sum, stamp) => sum + (stamp?.sizeBytes ?? 0), 0);
    const { bavail, bsize } = fs.statfsSync(os.tmpdir());
    if (bavail * bsize < neededBytes) {
        throw unreadable(`no space for a private copy of the database in ${encoded(os.tmpdir())}`);
    }
    for (const [suffix, stamp] of Object.entries(stamps)) {
        if (holds(stamp)) {
            try {
                fs.copyFileSync(asPath(path + suffix), copy + suffix, fs.constants.COPYFILE_FICLONE);
            } catch (error) {
                throw unreadable(`no private copy of the database could be made: ${error.code}`);
            }
        }
    }
    const now = lookAt(path);
    // A WAL that has grown is a later state; every commit in it has its checksum.
    return isSame(now.database, look.database) && isSame(now.journal, look.journal);
}
