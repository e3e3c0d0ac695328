// Locks between processes: the twin of sidecar/stores/file_lock.py, whose locks these are.
//
// Node can't call flock. But such a lock belongs to the open file, not to the process that took it: a child that is
// given the descriptor takes it, and this process has it for as long as the file is open here.

import { spawnSync } from "node:child_process";
import fs from "node:fs";

import { system, unreadable } from "./errors.mjs";
import { waitAWhile } from "./aside.mjs";
import { BACKUP_LOCK_POLL_MS, BACKUP_LOCK_WAIT_MS } from "./backup_limits.mjs";
import { out } from "./output.mjs";
import { isSameFile } from "./rules.mjs";
import { statusIfThere, statusOfOpen } from "./system_words.mjs";
import { asPath } from "./text.mjs";

const LOCKING = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_NOFOLLOW;
// Each takes the lock of its descriptor 3, and ends with 1 if another has it. Macs have no flock.
const LOCKERS = [
    ["flock", ["-n", "3"]],
    ["perl", ["-e", "use Fcntl ':flock'; open(my $file, '+<&=', 3) or exit 2; exit !flock($file, LOCK_EX | LOCK_NB)"]],
];

/** The lock of the file at `path`, which is made if it isn't there; its folder must be. */
export class FileLock {
    #fd = null;

    constructor(path) {
        this.path = path;
    }

    /** Take it; false if another holds it for `waitMs`. */
    acquire(waitMs = 0) {
        const fd = system(this.path, () => fs.openSync(asPath(this.path), LOCKING, 0o600));
        const giveUpAt = Date.now() + waitMs;
        try {
            while (!tryLock(fd)) {
                if (Date.now() >= giveUpAt) {
                    fs.closeSync(fd);
                    return false;
                }
                waitAWhile(BACKUP_LOCK_POLL_MS, () => out.tick());
            }
        } catch (error) {
            fs.closeSync(fd);
            throw error;
        }
        this.#fd = fd;
        return true;
    }

    /** Let it go; nothing if it isn't held. */
    release() {
        if (this.#fd !== null) {
            fs.closeSync(this.#fd);
            this.#fd = null;
        }
    }

    /** Whether it is that of the file at its path, which may have been removed while it was waited for. */
    isInPlace() {
        const status = this.#fd === null ? null : statusIfThere(this.path);
        return status !== null && isSameFile(statusOfOpen(this.#fd), status);
    }
}

/** What `work` returns, done while the lock of the file at `path` is held. */
export function whileHeld(path, work) {
    const lock = new FileLock(path);
    if (!lock.acquire(BACKUP_LOCK_WAIT_MS)) {
        throw unreadable(`another process holds the lock ${path}; waited ${BACKUP_LOCK_WAIT_MS / 1000} s`);
    }
    try {
        return work();
    } finally {
        lock.release();
    }
}

function tryLock(fd) {
    for (const [program, given] of LOCKERS) {
        const { status } = spawnSync(program, given, { stdio: ["ignore", "ignore", "ignore", fd] });
        if (status === 0 || status === 1) {
            return status === 0;
        }
    }
    throw unreadable("what is done to backups on a host with Node takes the program flock, or perl, there");
}
