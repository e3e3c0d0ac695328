// Walk a tree in the order of its manifest: the twin of sidecar/backup/tree.py.

import fs from "node:fs";

import { system, SystemError } from "./errors.mjs";
import { NAMES_AT_ONCE } from "./backup_limits.mjs";
import { byPhase, DATABASE_MAGIC, databaseBeside, isDatabaseName } from "./rules.mjs";
import { describe, ifPossible, isOfSystem, statusOf, statusThrough, unless } from "./system_words.mjs";
import { asPath, compare, joined } from "./text.mjs";

const READING = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** Open a file of a tree: not through a link, and without waiting for what took its place. The caller closes it. */
export const openToRead = (path) => system(path, () => fs.openSync(asPath(path), READING));

export const isFound = (kind, path, status, text = "") => ({ kind, path, status, text });
export const below = (root, path) => (path === "" ? root : joined(root, path));

/**
 * What `selection` takes below `root`, which may be a link to a folder: each `{ kind, path, status, text }`.
 *
 * `kind` is `dir`, `file`, `link`, `leftOut` or `failed`, `text` a byte string. Without a selection, everything.
 */
export function* walk(root, selection) {
    yield isFound("dir", "", statusThrough(root));
    const stack = [["", byPhase(() => sortedNames(root))]];
    while (stack.length > 0) {
        const [folder, names] = stack.at(-1);
        let name;
        try {
            name = names.next().value;
        } catch (error) {
            if (!(error instanceof SystemError) || (folder === "" && error.code !== "ENOENT")) {
                throw error;
            }
            if (error.code !== "ENOENT") {
                yield isFound("failed", folder, null, describe(error));
            }
        }
        if (name === undefined) {
            stack.pop();
            continue;
        }
        const path = folder === "" ? name : `${folder}/${name}`;
        const found = lookAtOne(root, path, selection);
        if (found === null) {
            continue;
        }
        yield found;
        if (found.kind === "dir") {
            stack.push([path, sortedNames(below(root, path))]);
        }
    }
}

/** Whether the file is an SQLite database, by its name or else by how it begins. */
export function isDatabase(path) {
    if (isDatabaseName(path)) {
        return true;
    }
    const fd = openToRead(path);
    try {
        const start = Buffer.alloc(DATABASE_MAGIC.length);
        const count = system(path, () => fs.readSync(fd, start, 0, start.length, 0));
        return start.subarray(0, count).equals(asPath(DATABASE_MAGIC));
    } finally {
        fs.closeSync(fd);
    }
}

function lookAtOne(root, path, selection) {
    let status;
    try {
        status = unless(["ENOENT"], () => statusOf(below(root, path)));
    } catch (error) {
        if (isOfSystem(error, error.code)) {
            return isFound("failed", path, null, describe(error));
        }
        throw error;
    }
    if (status === null) {
        return null;
    }
    const reason = selection?.reasonToLeaveOut(path, status) ?? null;
    if (reason !== null) {
        return isFound("leftOut", path, status, reason);
    }
    if (status.isDirectory()) {
        return isFound("dir", path, status);
    }
    if (status.isSymbolicLink()) {
        return isFound("link", path, status);
    }
    if (!status.isFile()) {
        return isFound("leftOut", path, status, "a socket, a FIFO or a device");
    }
    if (selection !== null && isBesideDatabase(root, path)) {
        return isFound("leftOut", path, status, "of a database, which is copied through SQLite");
    }
    return isFound("file", path, status);
}

function isBesideDatabase(root, path) {
    const database = databaseBeside(path);
    if (database === null) {
        return false;
    }
    // The name alone makes no database: what lies beside a folder, a link or nothing is the user's own.
    const fullPath = below(root, database);
    return ifPossible(() => statusOf(fullPath).isFile() && isDatabase(fullPath)) ?? false;
}

/** The names in a folder by their bytes: of a large one the first NAMES_AT_ONCE, then the next, and so on. */
function* sortedNames(folder) {
    for (let last = ""; ;) {
        let names = [];
        let isWhole = true;
        for (const name of namesIn(folder)) {
            if (name > last) {
                names.push(name);
                if (names.length === 2 * NAMES_AT_ONCE) {
                    names = names.sort(compare).slice(0, NAMES_AT_ONCE);
                    isWhole = false;
                }
            }
        }
        names.sort(compare);
        yield* isWhole ? names : names.slice(0, NAMES_AT_ONCE);
        if (isWhole) {
            return;
        }
        last = names[NAMES_AT_ONCE - 1];
    }
}

/** The names in a folder as they come. */
function* namesIn(folder) {
    const open = () => fs.opendirSync(asPath(folder), { encoding: "buffer", bufferSize: 512 });
    const entries = system(folder, open);
    try {
        for (let entry; (entry = system(folder, () => entries.readSync())) !== null;) {
            yield entry.name.toString("latin1");
        }
    } finally {
        entries.closeSync();
    }
}
