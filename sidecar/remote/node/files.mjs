// Open and read files and folders: the twin of sidecar/stores/files.py.

import fs from "node:fs";

import { system, unreadable } from "./errors.mjs";
import { out } from "./output.mjs";
import { asBytes, asPath } from "./text.mjs";

const OPEN_FLAGS = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY;

/** Open a regular file; the caller closes it. `given` is what an error names. */
export function openRegular(path, given = path) {
    const fd = system(given, () => fs.openSync(asPath(path), OPEN_FLAGS));
    try {
        const found = system(null, () => fs.fstatSync(fd));
        if (!found.isFile()) {
            throw unreadable("not a regular file");
        }
        return { fd, sizeBytes: found.size, modifiedAtMs: found.mtimeMs };
    } catch (error) {
        fs.closeSync(fd);
        throw error;
    }
}

/** Open a folder; the caller closes it. */
export function openFolder(path) {
    return system(path, () => fs.openSync(asPath(path), OPEN_FLAGS | fs.constants.O_DIRECTORY));
}

/** What is in a folder, as `fs.Dirent`, each with its name as a byte string in `name`. */
export function listFolder(path) {
    const entries = system(path, () => fs.readdirSync(asPath(path), { withFileTypes: true, encoding: "buffer" }));
    for (const entry of entries) {
        entry.name = asBytes(entry.name);
    }
    return entries;
}

/** Whether `path` leads to something; what can't be found out counts as no. */
export function exists(path) {
    try {
        fs.statSync(asPath(path));
        return true;
    } catch {
        return false;
    }
}

export function isThere(path) {
    try {
        fs.lstatSync(asPath(path));
        return true;
    } catch {
        return false;
    }
}

/** A regular file or a link to one; also a broken link, since opening it will say what is wrong. */
export function mayBeFile(entry, path) {
    if (!entry.isSymbolicLink()) {
        return entry.isFile();
    }
    try {
        return fs.statSync(asPath(path)).isFile();
    } catch {
        return true;
    }
}

/** Reads `left` bytes at most, from the beginning: what is appended meanwhile is a later state. */
export class BoundedReader {
    #fd;
    #place = 0;

    constructor(fd, sizeBytes) {
        this.#fd = fd;
        this.left = sizeBytes;
    }

    get countBytes() {
        return this.#place;
    }

    read(buffer, start, end) {
        out.tick();
        const length = Math.min(end - start, this.left);
        const count = length && system(null, () => fs.readSync(this.#fd, buffer, start, length, this.#place));
        this.#place += count;
        this.left -= count;
        return count;
    }

    /** All of it, or, if the file turned out shorter, what there was. */
    readAll() {
        const data = Buffer.allocUnsafe(this.left);
        let end = 0;
        for (let count = -1; count !== 0; end += count) {
            count = this.read(data, end, data.length);
        }
        return data.subarray(0, end);
    }
}
