// The folder that holds the snapshots, and what is staged in it: the twin of sidecar/backup/folder.py.

import crypto from "node:crypto";

import { SystemError, Trouble } from "./errors.mjs";
import { fsyncFolder, removeTree } from "./disk.mjs";
import { FileLock, whileHeld } from "./file_locks.mjs";
import { manifestEnds, statusOfFoot } from "./manifest.mjs";
import { createdAtOf, MANIFEST_SUFFIX, namesFor, rfc3339 } from "./snapshot_names.mjs";
import {
    ifPossible,
    isLexically,
    isTrouble,
    listNames,
    makeFolder,
    makeFolders,
    modeOf,
    move,
    setMode,
    statusOf,
    statusThrough,
    unless,
    unlink,
    unlinkIfThere,
} from "./system_words.mjs";
import { compare, joined } from "./text.mjs";
import { walk } from "./tree.mjs";

const STAGED = ".partial-";
const DELETED = ".deleted-";

/** `backups` in the ClawPal directory, made when it is first written to, for its owner only: it holds secrets. */
export class BackupFolder {
    constructor(clawpalDir) {
        this.clawpalDir = clawpalDir;
        this.path = joined(clawpalDir, "backups");
    }

    /** The snapshots that there are, by name, descending. */
    snapshots() {
        const names = this.#names().filter((name) => !name.startsWith("."));
        names.sort((one, other) => compare(other, one));
        return names.map((name) => this.#findIfThere(name)).filter((snapshot) => snapshot !== null);
    }

    /** A snapshot: `{ name, path, createdAt, sizeBytes, status, failedItems, failures }`. */
    find(name) {
        const path = joined(this.path, name);
        const status = unless(["ENOENT"], () => statusOf(path));
        if (status === null || !status.isDirectory()) {
            // The frontend looks for "no such file".
            throw new Trouble("backup_not_found", `no such file: there is no backup "${name}"`);
        }
        try {
            const { head, foot } = manifestEnds(this.manifestOf(name));
            return snapshotOf(name, path, head, foot);
        } catch (error) {
            // One that can't be read keeps the others from nothing; whoever checks or restores it is told.
            if (!isTrouble(error, "backup_damaged") && !(error instanceof SystemError)) {
                throw error;
            }
        }
        const createdAt = createdAtOf(name) ?? rfc3339(Number(status.mtimeMs));
        const rest = { status: "unverified", failedItems: 0, failures: [] };
        return { name, path, createdAt, sizeBytes: sizeOfTree(path), ...rest };
    }

    /** Where the manifest of a snapshot is, if it has one. */
    manifestOf(name) {
        return joined(this.path, name + MANIFEST_SUFFIX);
    }

    /** Delete a snapshot; false if there is none. */
    delete(name) {
        if (this.#findIfThere(name) === null) {
            return false;
        }
        const aside = this.#newPath(DELETED);
        const isGone = this.#whileHeld(() => {
            if (unless(["ENOENT"], () => move(joined(this.path, name), aside) ?? true) === null) {
                return false;
            }
            unlinkIfThere(this.manifestOf(name));
            fsyncFolder(this.path);
            return true;
        });
        removeTree(aside);
        return isGone;
    }

    /** What `work` returns; its `{ path, tree, manifest }` is a place to stage in, which is gone afterwards. */
    staging(work) {
        makeFolders(this.path, 0o700);
        if (modeOf(statusThrough(this.path)) & 0o077) {
            setMode(this.path, 0o700);
        }
        const path = this.#newPath(STAGED);
        const lock = new FileLock(joined(path, "lock"));
        try {
            this.#whileHeld(() => {
                makeFolder(path, 0o700);
                lock.acquire();
            });
            return work({ path, tree: joined(path, "tree"), manifest: joined(path, "manifest") });
        } finally {
            lock.release();
            removeTree(this.#putAside(path));
        }
    }

    /** Give what is staged, and is on the disk, a name that none has had; it is a snapshot from then on. */
    publish(staging, createdAtMs) {
        return this.#whileHeld(() => {
            const name = this.#newName(createdAtMs);
            // The manifest of a folder that never comes is cleared away; a folder without one would pass for whole.
            move(staging.manifest, this.manifestOf(name));
            try {
                move(staging.tree, joined(this.path, name));
            } catch (error) {
                // Unless it came after all, which a network file system may take for an error.
                if (this.#isOrphan(name + MANIFEST_SUFFIX)) {
                    ifPossible(() => unlink(this.manifestOf(name)));
                }
                throw error;
            }
            fsyncFolder(this.path);
            return name;
        });
    }

    #newName(createdAtMs) {
        const names = namesFor(createdAtMs);
        let name;
        do {
            name = names.next().value;
        } while (isLexically(joined(this.path, name)) || isLexically(this.manifestOf(name)));
        return name;
    }

    /** Remove what crashed backups and deletions left. Makes no folder; what another process uses stays. */
    clearLeftovers() {
        const isLeft = (name) => name.startsWith(STAGED) || name.startsWith(DELETED) || this.#isOrphan(name);
        const leftovers = this.#names().filter(isLeft);
        if (leftovers.length > 0) {
            const aside = this.#whileHeld(() => leftovers.map((name) => this.#clear(name)));
            aside.filter((path) => path !== null).forEach(removeTree);
        }
    }

    /** What is to be removed of a leftover, out of its place; null if nothing is. */
    #clear(name) {
        const path = joined(this.path, name);
        if (name.startsWith(DELETED)) {
            return path;
        }
        if (name.startsWith(STAGED)) {
            return isAbandoned(path) ? this.#putAside(path) : null;
        }
        if (this.#isOrphan(name)) {
            unlinkIfThere(path);
        }
        return null;
    }

    #findIfThere(name) {
        try {
            return this.find(name);
        } catch (error) {
            if (isTrouble(error, "backup_not_found")) {
                return null;
            }
            throw error;
        }
    }

    #names() {
        return unless(["ENOENT"], () => listNames(this.path)) ?? [];
    }

    /** Whether it is a manifest without a folder. */
    #isOrphan(name) {
        const path = joined(this.path, name);
        if (!name.endsWith(MANIFEST_SUFFIX) || isFolderThrough(path)) {
            return false;
        }
        return !isLexically(path.slice(0, -MANIFEST_SUFFIX.length));
    }

    #putAside(path) {
        const aside = this.#newPath(DELETED);
        return ifPossible(() => move(path, aside) ?? aside) ?? path;
    }

    /** What `work` returns, under the lock under which names come and go. */
    #whileHeld(work) {
        return whileHeld(joined(this.path, ".lock"), work);
    }

    #newPath(prefix) {
        return joined(this.path, prefix + crypto.randomBytes(8).toString("hex"));
    }
}

export function snapshotOf(name, path, head, foot) {
    const { sizeBytes, failedItems, failures } = foot;
    return { name, path, createdAt: head.createdAt, sizeBytes, status: statusOfFoot(foot), failedItems, failures };
}

const isFolderThrough = (path) => ifPossible(() => statusThrough(path))?.isDirectory() ?? false;

function isAbandoned(path) {
    if (ifPossible(() => statusOf(path))?.isSymbolicLink()) {
        return true;
    }
    const lock = new FileLock(joined(path, "lock"));
    try {
        // Null: there is none. What can't be looked at, a later start finds out.
        return ifPossible(() => unless(["ENOENT", "ENOTDIR"], () => lock.acquire()) ?? true) ?? false;
    } finally {
        lock.release();
    }
}

function sizeOfTree(folder) {
    let sizeBytes = 0;
    for (const { kind, status } of walk(folder, null)) {
        sizeBytes += kind === "dir" || status === null ? 0 : Number(status.size);
    }
    return sizeBytes;
}
