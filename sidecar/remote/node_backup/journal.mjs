// What a restore does to a tree, as a list on the disk: the twin of sidecar/backup/journal.py, which explains it.

import fs from "node:fs";

import { system, unreadable } from "./errors.mjs";
import { MAX_MANIFEST_LINE_BYTES } from "./backup_limits.mjs";
import { fsyncFolder, removeTree } from "./disk.mjs";
import { FileLock } from "./file_locks.mjs";
import { jsonLine, LineReader, parseLine } from "./json_lines.mjs";
import { RESTORE_FOLDER } from "./rules.mjs";
import {
    isLexically,
    isOfSystem,
    listNames,
    makeFolder,
    move,
    setTimes,
    statusIfThere,
    statusThrough,
    unless,
    unlink,
    unlinkIfThere,
} from "./system_words.mjs";
import { asPath, fileName, joined, LF, wireName } from "./text.mjs";
import { below } from "./tree.mjs";

/** Called before each change that a restore makes to the tree; tests have their faults here. */
export function takeStep() {}

/** What tells whether there is still the same at a path; nothing of what isn't there. */
export const stateOf = ({ ino, size, mtimeNs, ctimeNs }) => [ino, size, mtimeNs, ctimeNs];

export function stateAt(path) {
    const status = statusIfThere(path);
    return status === null ? [] : stateOf(status);
}

export const isSameState = (one, other) => String(one) === String(other);

/** Move what is at `source`, whatever it is, to `target`. */
export function moveInTree(source, target) {
    takeStep();
    move(source, target);
}

/** The folder of a restore in the tree at `root`, which is a real folder: what is where, and what counts. */
export class Workspace {
    #new;
    #old;

    constructor(root) {
        this.root = root;
        this.path = joined(root, RESTORE_FOLDER);
        const inside = (name) => joined(this.path, name);
        this.lock = inside("lock");
        this.plan = inside("plan.jsonl");
        this.journal = inside("journal.jsonl");
        this.undo = inside("undo.jsonl");
        this.#new = inside("new");
        this.#old = inside("old");
    }

    full(path) {
        return below(this.root, path);
    }

    newAt(number) {
        return `${this.#new}/${number}`;
    }

    oldAt(number) {
        return `${this.#old}/${number}`;
    }

    /** Make place for what comes and what goes. */
    prepare() {
        for (const folder of [this.#new, this.#old]) {
            takeStep();
            makeFolder(folder, 0o700);
        }
    }

    /** From now on the restore is to be finished, whatever happens: the plan, which must be on the disk, holds. */
    begin() {
        moveInTree(this.plan, this.journal);
        fsyncFolder(this.path);
    }

    /** From now on the restore is to be undone, whatever happens. */
    turnBack() {
        moveInTree(this.journal, this.undo);
        fsyncFolder(this.path);
    }

    /** What is in the tree, and on the disk, is what counts from now on. */
    end() {
        for (const path of [this.journal, this.undo]) {
            takeStep();
            unlinkIfThere(path);
        }
        fsyncFolder(this.path);
    }

    get isOpen() {
        return isLexically(this.journal) || isLexically(this.undo);
    }

    /** Remove all but the lock. */
    clear() {
        unlinkIfThere(this.plan);
        [this.#new, this.#old].filter(isFolder).forEach(removeTree);
    }
}

/** The lock of the tree's restores; null if another has it. Its folder is made if it isn't there. */
export function takeTree(workspace) {
    for (;;) {
        const isMade = unless(["EEXIST"], () =>
            withSameTimes(workspace.root, () => {
                takeStep();
                makeFolder(workspace.path, 0o700);
                return true;
            }),
        );
        if (isMade === null && isLexically(workspace.path) && !isFolder(workspace.path)) {
            throw unreadable(`${workspace.path} is in the way: it is no folder`);
        }
        const lock = new FileLock(workspace.lock);
        // Null: whoever had it has just removed the folder.
        const isTaken = unless(["ENOENT"], () => lock.acquire());
        if (isTaken === false) {
            return null;
        }
        if (isTaken && lock.isInPlace()) {
            return lock;
        }
        lock.release();
    }
}

/** Let the lock go, and remove the folder if nothing else is in it. */
export function giveTreeUp(workspace, lock) {
    try {
        if (listNames(workspace.path).every((name) => name === "lock")) {
            withSameTimes(workspace.root, () => {
                unlink(workspace.lock);
                system(workspace.path, () => fs.rmdirSync(asPath(workspace.path)));
            });
        }
    } catch (error) {
        // Else another is just about to take it, or it stays for the next start.
        if (!isOfSystem(error, error.code)) {
            throw error;
        }
    } finally {
        lock.release();
    }
}

const DEFAULTS = {
    number: 0,
    was: null,
    mode: 0,
    modifiedAtNs: 0n,
    owner: null,
    sizeBytes: 0,
    sha256: "",
    text: null,
};
const KEYS = { modifiedAtNs: "mtime_ns", sizeBytes: "size_bytes" };

/** An operation of this kind; what it says of itself hangs on that. */
export const operationOf = (kind, path, given = {}) => ({ kind, path, ...DEFAULTS, ...given });

/** An operation as a line of a plan. */
export function operationLine(operation) {
    const given = Object.entries(DEFAULTS).filter(([name, value]) => operation[name] !== value);
    const fields = given.map(([name]) => [KEYS[name] ?? name, operation[name]]);
    return jsonLine({ kind: operation.kind, path: wireName(operation.path), ...Object.fromEntries(fields) });
}

/** The operations of the list at `path`, in order. */
export function* readOperations(path) {
    const lines = new LineReader(path);
    try {
        for (let line; (line = lines.next()).length > 0;) {
            yield parsedOperation(line);
        }
    } finally {
        lines.close();
    }
}

/** The same from the last to the first. */
export function* readOperationsBackwards(path) {
    const fd = system(path, () => fs.openSync(asPath(path), "r"));
    try {
        let end = system(path, () => fs.fstatSync(fd)).size;
        let rest = Buffer.alloc(0);
        while (end > 0) {
            const start = Math.max(0, end - MAX_MANIFEST_LINE_BYTES);
            const block = Buffer.alloc(end - start);
            system(path, () => fs.readSync(fd, block, 0, block.length, start));
            rest = Buffer.concat([block, rest]);
            end = start;
            // What is before the first line feed may have begun in the block before.
            for (let last; (last = rest.subarray(0, -1).lastIndexOf(LF)) >= 0;) {
                yield parsedOperation(rest.subarray(last + 1));
                rest = rest.subarray(0, last + 1);
            }
        }
        if (rest.length > 0) {
            yield parsedOperation(rest);
        }
    } finally {
        fs.closeSync(fd);
    }
}

function parsedOperation(line) {
    try {
        const { kind, path, was, mtime_ns: modifiedAtNs = 0, size_bytes: sizeBytes = 0, ...rest } = parseLine(line);
        return operationOf(kind, fileName(path), {
            ...rest,
            was: was === undefined || was === null ? null : was.map(BigInt),
            modifiedAtNs: BigInt(modifiedAtNs),
            sizeBytes,
        });
    } catch {
        throw unreadable("the journal of a restore can't be read");
    }
}

/** Whether there is a folder, and no link to one. */
export function isFolder(path) {
    return statusIfThere(path)?.isDirectory() ?? false;
}

/** Let names come and go in a folder without its times telling; what fails has changed nothing. */
function withSameTimes(folder, work) {
    const { atimeNs, mtimeNs } = statusThrough(folder);
    const result = work();
    unless(["ENOENT", "EACCES", "EPERM"], () => setTimes(folder, mtimeNs, atimeNs));
    return result;
}
