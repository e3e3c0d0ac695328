// A folder whose files are removed, and the locks in it: the twin of sidecar/stores/session_folders.py.

import fs from "node:fs";
import process from "node:process";

import { system } from "./errors.mjs";
import { BoundedReader, exists, openFolder, openRegular } from "./files.mjs";
import { LOCK_STALE_MS, MAX_LOCK_BYTES } from "./limits.mjs";
import { asPath, joined } from "./text.mjs";

const NEW_FILE_FLAGS = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL;

/** A folder held open: where the system has a path for that, no other can take its place. Errors name what is in it. */
export class HeldFolder {
    #path;

    constructor(path) {
        this.fd = openFolder(path);
        const held = `/proc/self/fd/${this.fd}`;
        this.#path = exists(held) ? held : path;
    }

    pathOf(name) {
        return joined(this.#path, name);
    }

    stat(name, { follow = true } = {}) {
        const look = follow ? fs.statSync : fs.lstatSync;
        return system(name, () => look(asPath(this.pathOf(name)), { bigint: true }));
    }

    /** Remove a file, or a link and not what it leads to; false if it has gone already. */
    remove(name) {
        try {
            system(name, () => fs.unlinkSync(asPath(this.pathOf(name))));
            return true;
        } catch (error) {
            if (error.code === "ENOENT") {
                return false;
            }
            throw error;
        }
    }

    /** Open a new file for writing. */
    create(name) {
        return system(name, () => fs.openSync(asPath(this.pathOf(name)), NEW_FILE_FLAGS, 0o600));
    }

    replace(name, by) {
        system(by, () => fs.renameSync(asPath(this.pathOf(by)), asPath(this.pathOf(name))));
        this.sync();
    }

    /** Make what was created, renamed and removed outlast a loss of power, where the file system can. */
    sync() {
        try {
            fs.fsyncSync(this.fd);
        } catch {
            // It can't.
        }
    }

    close() {
        fs.closeSync(this.fd);
    }
}

/** Whether two looks at a name saw the same file with, as far as its times and size tell, the same content. */
export function isSameFile(one, other) {
    return ["dev", "ino", "size", "mtimeNs", "ctimeNs"].every((field) => one[field] === other[field]);
}

/** Who holds a lock file, in words; null if there is none, or a stale one. */
export function liveLock(folder, name) {
    let found;
    try {
        found = folder.stat(name, { follow: false });
    } catch (error) {
        if (error.code === "ENOENT" || error.code === "ENAMETOOLONG") {
            return null;
        }
        throw error;
    }
    const pid = lockOwner(folder, name);
    if (pid === null) {
        return Date.now() - Number(found.mtimeMs) < LOCK_STALE_MS ? "an unknown process" : null;
    }
    return isRunning(pid) ? `process ${pid}` : null;
}

/** OpenClaw's locks are JSON with a `pid`. One that can't be read may be of a process that is just writing it. */
function lockOwner(folder, name) {
    try {
        const file = openRegular(folder.pathOf(name));
        try {
            const text = new BoundedReader(file.fd, Math.min(file.sizeBytes, MAX_LOCK_BYTES)).readAll().toString();
            const { pid } = JSON.parse(text);
            return Number.isInteger(pid) && pid >= 1 ? pid : null;
        } finally {
            fs.closeSync(file.fd);
        }
    } catch {
        return null;
    }
}

function isRunning(pid) {
    try {
        process.kill(pid, 0);
        return true;
    } catch (error) {
        return error.code === "EPERM"; // else there is none, or no process can have this number
    }
}
