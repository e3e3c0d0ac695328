// Copy files with their digests, and tell whether one changed meanwhile: the twin of sidecar/backup/files.py.

import crypto from "node:crypto";
import fs from "node:fs";
import process from "node:process";

import { system, SystemError, unreadable } from "./errors.mjs";
import { COPY_BYTES, MAX_COPIES, SETTLED_NS } from "./backup_limits.mjs";
import { describe, modeOf, setMode, setOwner, setTimes, statusOfOpen } from "./system_words.mjs";
import { openToRead } from "./tree.mjs";
import { asPath } from "./text.mjs";

const WRITING_ANEW = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_TRUNC;
const CLONING = fs.constants.COPYFILE_EXCL | fs.constants.COPYFILE_FICLONE_FORCE;
const isRoot = process.geteuid?.() === 0;
let block = null;

/** The file begins with what a copy was to stop at. */
export class StoppedAt extends Error {}

/**
 * Copy a file that others may write to, so that the copy is a state that it had; with mode, times and owner.
 *
 * One that changes meanwhile is copied again, MAX_COPIES times; of one that only grew, what it was at first is such a
 * state. Throws StoppedAt where it begins with `stopAt`. The result is `{ sha256, sizeBytes, status }`.
 */
export function copyFile(source, target, progress, stopAt = null) {
    const fd = openSource(source);
    try {
        for (let tries = 0; tries < MAX_COPIES; tries++) {
            const before = statusOfOpen(fd);
            if (!before.isFile()) {
                throw unreadable("no regular file any more");
            }
            const isYoung = nowNs() - before.mtimeNs < SETTLED_NS;
            const { sha256, sizeBytes } = copyOnce(fd, target, before, progress, stopAt);
            const after = statusOfOpen(fd);
            const isChanged = before.size !== after.size || before.mtimeNs !== after.mtimeNs;
            if (!isChanged && !isYoung && sizeBytes === Number(before.size)) {
                return { sha256, sizeBytes, status: before };
            }
            // If it was so twice, it was so when it was opened: only what is behind that is new.
            if (sizeBytes <= Number(after.size) && sha256 === digestOfOpen(fd, sizeBytes, () => progress.step())) {
                return { sha256, sizeBytes, status: before };
            }
            progress.bytesCopied -= sizeBytes;
        }
        throw unreadable(`it changed each of the ${MAX_COPIES} times that it was copied`);
    } finally {
        fs.closeSync(fd);
    }
}

/** The SHA-256 of a file. */
export function digestOf(path, progress) {
    const fd = openSource(path);
    try {
        return digestOfOpen(fd, Infinity, (sizeBytes) => progress.step(sizeBytes));
    } finally {
        fs.closeSync(fd);
    }
}

export const nowNs = () => BigInt(Date.now()) * 1_000_000n;

/** Give the file at `path` the mode, the times and, if this process may, the owner that `status` tells of. */
export function keepStatus(path, status) {
    const owner = ownerOf(status);
    if (owner !== null && isRoot) {
        setOwner(path, owner);
    }
    setMode(path, modeOf(status));
    setTimes(path, status.mtimeNs);
}

/** User and group, where they aren't those of this process. */
export function ownerOf(status) {
    const owner = [Number(status.uid), Number(status.gid)];
    return owner[0] === process.geteuid() && owner[1] === process.getegid() ? null : owner;
}

/** Make `target` share what `source` has on the disk, where the file system can; each stays its own file. */
export function clone(source, target) {
    try {
        fs.copyFileSync(asPath(source), asPath(target), CLONING);
        return true;
    } catch {
        return false;
    }
}

/** Copy the bytes of a file, of whatever state, with none of its status. */
export function copyBytes(source, target, progress) {
    const fd = openSource(source);
    try {
        copyOnce(fd, target, null, progress, null);
    } finally {
        fs.closeSync(fd);
    }
}

/** Copy as much as `status` tells of, or less if there is less; without it, all. */
function copyOnce(fd, target, status, progress, stopAt) {
    const digest = crypto.createHash("sha256");
    const mostBytes = status === null ? Infinity : Number(status.size);
    let sizeBytes = 0;
    const targetFd = system(target, () => fs.openSync(asPath(target), WRITING_ANEW, 0o600));
    try {
        while (sizeBytes < mostBytes) {
            const data = readBlock(fd, sizeBytes, mostBytes - sizeBytes);
            if (data.length === 0) {
                break;
            }
            if (stopAt !== null && sizeBytes === 0 && data.subarray(0, stopAt.length).equals(asPath(stopAt))) {
                throw new StoppedAt();
            }
            digest.update(data);
            for (let place = 0; place < data.length;) {
                place += system(target, () => fs.writeSync(targetFd, data, place));
            }
            sizeBytes += data.length;
            progress.step(status === null ? 0 : data.length);
        }
        if (sizeBytes === 0) {
            progress.step();
        }
    } finally {
        fs.closeSync(targetFd);
    }
    if (status !== null) {
        keepStatus(target, status);
    }
    return { sha256: digest.digest("hex"), sizeBytes };
}

function digestOfOpen(fd, mostBytes, step) {
    const digest = crypto.createHash("sha256");
    for (let place = 0; place < mostBytes;) {
        const data = readBlock(fd, place, mostBytes - place);
        if (data.length === 0) {
            break;
        }
        digest.update(data);
        place += data.length;
        step(data.length);
    }
    return digest.digest("hex");
}

function openSource(path) {
    try {
        return openToRead(path);
    } catch (error) {
        throw error instanceof SystemError && error.code !== "ENOENT" ? unreadable(describe(error)) : error;
    }
}

/** What is in a file from `place` on, at most COPY_BYTES; it holds until the next call. */
function readBlock(fd, place, mostBytes) {
    block ??= Buffer.allocUnsafeSlow(COPY_BYTES);
    try {
        return block.subarray(0, system(null, () => fs.readSync(fd, block, 0, Math.min(mostBytes, COPY_BYTES), place)));
    } catch (error) {
        throw error instanceof SystemError ? unreadable(describe(error)) : error;
    }
}
