// What stands in the way of a restore, found before its first change: the twin of sidecar/backup/obstacles.py.

import fs from "node:fs";
import process from "node:process";

import { system, Trouble } from "./errors.mjs";
import { MAX_NAMED_REFUSALS, MAX_REPORTED_FAILURES } from "./backup_limits.mjs";
import { ifPossible, statusOf } from "./system_words.mjs";
import { asPath, encoded, joined, wireName } from "./text.mjs";
import { below } from "./tree.mjs";

const MOUNTED = "/proc/self/mountinfo";
const ON_ANOTHER = "it is on another file system than the tree, or a mount point is there";

/** Those of the tree at `root`, a real folder; counted, and the first kept. Paths are byte strings. */
export class Obstacles {
    #root;
    #device;
    #mounts;
    #user = process.geteuid();
    failedItems = 0;
    failures = [];
    changes = [];

    constructor(root) {
        this.#root = root;
        this.#device = statusOf(root).dev;
        this.#mounts = mountsBelow(root);
    }

    /** At what is to be moved away, or removed. */
    lookAtOld(path, status) {
        if (status.dev !== this.#device || this.#mounts.some((mount) => isAtOrBelow(mount, path))) {
            this.#fail(path, ON_ANOTHER);
        } else if (this.#user > 0 && Number(status.uid) !== this.#user) {
            this.#fail(path, `permission denied: it belongs to another user (${status.uid})`);
        }
    }

    /** At a folder in which something changes. */
    lookAtFolder(path, status) {
        const isElsewhere = status.dev !== this.#device || this.#mounts.some((mount) => isAtOrBelow(path, mount));
        if (path !== "" && isElsewhere) {
            this.#fail(path, ON_ANOTHER);
        } else if (Number(status.uid) !== this.#user && !isWritable(below(this.#root, path))) {
            // One of our own can be made writable for a while.
            this.#fail(path, "permission denied: the folder can't be written to");
        }
    }

    /** At what is there now, and was so, or wasn't there, when the state before was kept. */
    lookForChange(path, status, was) {
        if ((was === null || !isAsKept(status, was)) && this.changes.length < MAX_REPORTED_FAILURES) {
            this.changes.push(`${path} changed after its state was kept`);
        }
    }

    /** Throws if something can't be replaced or removed. */
    checkWritable() {
        if (this.failures.length > 0) {
            throw notWritable("", this.failedItems, this.failures);
        }
    }

    #fail(path, error) {
        this.failedItems += 1;
        if (this.failures.length < MAX_REPORTED_FAILURES) {
            this.failures.push({ path: wireName(path || this.#root), error });
        }
    }
}

/** What to throw where nothing was changed, for these failures. */
export function notWritable(what, failedItems, failures) {
    const [{ path, error }] = failures;
    const more = failedItems > 1 ? `, and ${failedItems - 1} more` : "";
    const message = `${what}${encoded(path)}: ${encoded(error)}${more}; nothing was changed`;
    return new Trouble("target_not_writable", message, { failedItems, failures });
}

/** Throws if there are any. */
export function checkUnused(users) {
    if (users.length > 0) {
        const named = users.slice(0, MAX_NAMED_REFUSALS);
        if (users.length > named.length) {
            named.push(`and ${users.length - named.length} more`);
        }
        throw inUse(`in use: ${named.join("; ")}; nothing was changed`, users.slice(0, MAX_REPORTED_FAILURES));
    }
}

export const inUse = (message, users) => new Trouble("target_in_use", message, { users: users.map(wireName) });

function isAsKept(status, was) {
    if (was.kind === "dir" || was.kind === "link") {
        return was.kind === "dir" ? status.isDirectory() : status.isSymbolicLink();
    }
    if (!status.isFile() || status.mtimeNs !== was.modifiedAtNs) {
        return false;
    }
    if (was.source !== null && was.source[0] !== status.ino) {
        return false;
    }
    // A database was copied with what was in its WAL.
    return was.isDatabase || Number(status.size) === was.sizeBytes;
}

const isAtOrBelow = (path, top) => path === top || path.startsWith(`${top}/`);

function isWritable(path) {
    const ways = fs.constants.W_OK | fs.constants.X_OK;
    return ifPossible(() => system(path, () => fs.accessSync(asPath(path), ways))) !== null;
}

/** What is mounted in the tree, by paths from its top; nothing where the system doesn't tell. */
function mountsBelow(root) {
    const text = ifPossible(() => system(MOUNTED, () => fs.readFileSync(MOUNTED, "latin1"))) ?? "";
    const character = (_, digits) => String.fromCharCode(parseInt(digits, 8));
    const inside = joined(root, "");
    return text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => line.split(" ")[4].replace(/\\([0-7]{3})/g, character))
        .filter((point) => point.startsWith(inside))
        .map((point) => point.slice(inside.length));
}
