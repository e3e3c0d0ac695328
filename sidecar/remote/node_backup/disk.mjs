// What is asked of a file system beside reading and writing: room, a sync, the end of a tree. The twin of
// sidecar/backup/disk.py.

import fs from "node:fs";

import { system, SystemError, Trouble } from "./errors.mjs";
import { doAside } from "./aside.mjs";
import { FREE_SPACE_LEFT_BYTES, MEBIBYTE } from "./backup_limits.mjs";
import { describe, ifPossible, isOfSystem, setMode, statusOf, unless, unlink } from "./system_words.mjs";
import { asPath } from "./text.mjs";
import { below, walk } from "./tree.mjs";

const DISK_BLOCK_BYTES = 4096;

/** Throws if what is free where `folder` lies is less than is needed, and a little more. */
export function checkSpace(folder, neededBytes) {
    if (!hasSpace(folder, neededBytes)) {
        const [needed, free, left] = [neededBytes, freeBytes(folder), FREE_SPACE_LEFT_BYTES].map(inMebibytes);
        const what = `${needed} are needed, ${free} are free; ${left} are left free`;
        throw new Trouble("no_space", `no space left on device: ${what}`);
    }
}

export const hasSpace = (folder, neededBytes) => neededBytes + FREE_SPACE_LEFT_BYTES <= freeBytes(folder);

/** The bytes of a disk that a file of this size takes. */
export const blocksOf = (sizeBytes) => Math.ceil(sizeBytes / DISK_BLOCK_BYTES) * DISK_BLOCK_BYTES;

export const isFull = (error) => isOfSystem(error, "ENOSPC", "EDQUOT");

/** What to throw for an error: that there is no room, if it says so. */
export function orNoSpace(error) {
    return isFull(error) ? new Trouble("no_space", `no space left on device: ${describe(error)}`) : error;
}

/** Have all that was written below `path` on the disk: in one go, where there is a program that can. */
export function syncTree(path, progress) {
    const fd = system(path, () => fs.openSync(asPath(path), "r"));
    try {
        if (doAside("syncFileSystem", { fd }, () => progress.step()).value !== true) {
            syncEach(path, progress);
        }
    } finally {
        fs.closeSync(fd);
    }
}

/** Have the names in a folder on the disk. */
export function fsyncFolder(path) {
    const fd = system(path, () => fs.openSync(asPath(path), "r"));
    try {
        system(path, () => fs.fsyncSync(fd));
    } finally {
        fs.closeSync(fd);
    }
}

/**
 * Remove a folder and what is in it, as far as that can be done: what can't be removed stays for a later start.
 *
 * Of a link, or a file, that itself.
 */
export function removeTree(path) {
    if (ifPossible(() => statusOf(path))?.isDirectory() === false) {
        ifPossible(() => unlink(path));
        return;
    }
    // A folder is listed anew after each of those in it has gone, so nothing is held of what is not being removed.
    const stack = [path];
    while (stack.length > 0) {
        const folder = stack.at(-1);
        let inner = null;
        let removed = 0;
        try {
            inner = eachUntilFolder(folder, (file) => {
                unlink(file);
                removed += 1;
            });
            if (inner === null) {
                system(folder, () => fs.rmdirSync(asPath(folder)));
            }
        } catch (error) {
            if (!(error instanceof SystemError)) {
                throw error;
            }
            if (error.code === "ENOTEMPTY" && removed > 0) {
                continue; // a listing may miss names while others go
            }
            if (error.code !== "ENOENT") {
                return;
            }
        }
        if (inner === null) {
            stack.pop();
        } else {
            ifPossible(() => setMode(inner, 0o700));
            stack.push(inner);
        }
    }
}

/** Hand on each file in a folder, until there is a folder in it; that folder, or null. */
function eachUntilFolder(folder, use) {
    const entries = system(folder, () => fs.opendirSync(asPath(folder), { encoding: "buffer", bufferSize: 512 }));
    try {
        for (let entry; (entry = system(folder, () => entries.readSync())) !== null;) {
            const path = below(folder, entry.name.toString("latin1"));
            if (entry.isDirectory()) {
                return path;
            }
            use(path);
        }
    } finally {
        entries.closeSync();
    }
    return null;
}

function syncEach(path, progress) {
    for (const { kind, path: inner } of walk(path, null)) {
        if (kind === "file" || kind === "dir") {
            unless(["ENOENT"], () => fsyncFolder(below(path, inner)));
        }
        progress.step();
    }
}

function inMebibytes(sizeBytes) {
    const digits = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
    return `${(sizeBytes / MEBIBYTE).toLocaleString("en-US", digits)} MiB`;
}

function freeBytes(folder) {
    const { bavail, bsize } = system(folder, () => fs.statfsSync(asPath(folder)));
    return bavail * bsize;
}
