// Share with the snapshot before what did not change since: the twin of sidecar/backup/sharing.py.

import fs from "node:fs";

import { isTold, system } from "./errors.mjs";
import { TIME_SLACK_NS, YOUNG_NS } from "./backup_limits.mjs";
import { clone, keepStatus, nowNs, ownerOf } from "./copying.mjs";
import { ManifestReader } from "./manifest.mjs";
import { compareOrder, isDatabaseName } from "./rules.mjs";
import { ifPossible, modeOf, statusOf, statusThrough, unlinkIfThere } from "./system_words.mjs";
import { asPath } from "./text.mjs";
import { below } from "./tree.mjs";

/** What tells whether the file at `path` is still the one that was copied; null if it is too young to tell. */
export function sourceOf(path, status) {
    const wal = isDatabaseName(path) ? ifPossible(() => statusThrough(`${path}-wal`)) : null;
    const states = wal === null ? [status] : [status, wal];
    const times = states.flatMap(({ mtimeNs, ctimeNs }) => [mtimeNs, ctimeNs]);
    if (times.some((timeNs) => nowNs() - timeNs < YOUNG_NS)) {
        return null;
    }
    return states.flatMap(({ ino, size, mtimeNs, ctimeNs }) => [ino, size, mtimeNs, ctimeNs]);
}

/** Whether the file at `path` is still the one that `before` is a copy of. */
export function isUnchanged(before, path, status) {
    return before.source !== null && String(before.source) === String(sourceOf(path, status));
}

/** A snapshot, read beside a walk; asked for paths in the order of that walk. */
class PreviousSnapshot {
    #tree;
    #entries;
    #next = null;
    #isOver = false;
    #clones = true;

    constructor(tree, entries) {
        this.#tree = tree;
        this.#entries = entries;
    }

    /** The file that the snapshot has at this path, which comes after all that were asked for before; or null. */
    fileAt(path) {
        while (!this.#isOver) {
            this.#next ??= this.#nextEntry();
            if (this.#next === null) {
                this.#isOver = true;
            } else if (this.#next.path === path) {
                return this.#next.kind === "file" ? this.#next : null;
            } else if (compareOrder(this.#next.path, path) > 0) {
                return null;
            } else {
                this.#next = null;
            }
        }
        return null;
    }

    #nextEntry() {
        try {
            return this.#entries.next().value ?? null;
        } catch (error) {
            if (isTold(error)) {
                return null;
            }
            throw error;
        }
    }

    /** Make `target` the same file as that of `entry`, if that looks as it did; its bytes are counted. */
    share(entry, target, progress) {
        // Its content isn't read again, which would take most of what copying takes: `verify` finds what a disk loses.
        const source = below(this.#tree, entry.path);
        const isShared = ifPossible(() => {
            const status = statusOf(source);
            if (!looksLike(entry, status)) {
                return false;
            }
            this.#clones = this.#clones && clone(source, target);
            if (this.#clones) {
                keepStatus(target, status);
            } else {
                system(target, () => fs.linkSync(asPath(source), asPath(target)));
            }
            return true;
        });
        // Null: it is being deleted, or has as many links as it can have. The file is copied then.
        if (isShared === true) {
            progress.step(entry.sizeBytes);
        } else {
            unlinkIfThere(target);
        }
        return isShared === true;
    }
}

function looksLike(entry, status) {
    const offNs = status.mtimeNs - entry.modifiedAtNs;
    return (
        status.isFile() &&
        Number(status.size) === entry.sizeBytes &&
        modeOf(status) === entry.mode &&
        offNs < TIME_SLACK_NS &&
        -offNs < TIME_SLACK_NS &&
        String(ownerOf(status)) === String(entry.owner)
    );
}

/** What `use` returns, given the newest snapshot that has a manifest; if there is none, one that has nothing. */
export function withPreviousSnapshot(folder, use) {
    for (const { status, name, path } of folder.snapshots()) {
        const reader = status === "unverified" ? null : openedIfPossible(folder.manifestOf(name));
        if (reader !== null) {
            try {
                return use(new PreviousSnapshot(path, reader.entries()));
            } finally {
                reader.close();
            }
        }
    }
    return use(new PreviousSnapshot("", [][Symbol.iterator]()));
}

function openedIfPossible(path) {
    try {
        return new ManifestReader(path);
    } catch (error) {
        if (isTold(error)) {
            return null;
        }
        throw error;
    }
}
