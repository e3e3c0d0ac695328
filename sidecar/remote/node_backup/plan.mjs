// What a restore has to change: the twin of sidecar/backup/plan.py, which explains it.

import process from "node:process";

import { blocksOf } from "./disk.mjs";
import { operationOf, stateOf } from "./journal.mjs";
import { damaged } from "./manifest.mjs";
import { Obstacles } from "./obstacles.mjs";
import { compareOrder, RESTORE_FOLDER, sideFiles } from "./rules.mjs";
import { dirName, ifPossible, modeOf, readLink, statusIfThere, statusOf } from "./system_words.mjs";
import { wireName } from "./text.mjs";
import { below } from "./tree.mjs";

// The text of a folder of whose content nothing is known.
const UNLISTED = "it couldn't be listed";

/** A folder on the way to the current path; `status` is null of one that the restore makes. */
class PlannedFolder {
    isEntered = false;

    constructor(path, status, entry, goes = false) {
        this.path = path;
        this.status = status;
        this.entry = entry;
        this.goes = goes;
    }

    has(path) {
        return this.path === "" || path.startsWith(`${this.path}/`);
    }
}

/**
 * Plans the restore of one tree, whose top is at `root`, a real folder; `add` takes each operation.
 *
 * `wish` is `{ entries, selection, removes }`: the snapshot's entries in order, by which rules it was made, and whether
 * what it doesn't have goes. `obstacles`, `totals` and `databases` tell afterwards what stands in the way, what is to
 * be staged, and which databases are replaced or go.
 */
export class Planner {
    #root;
    #wish;
    #add;
    #progress;
    #number = 0;
    #folders;
    // What is here stays, and what is below it.
    #kept = null;
    // What is below this goes with it.
    #aside = null;
    // Nothing tells what was below this before.
    #notKept = null;
    #isRoot = process.geteuid() === 0;
    totals = { files: 0, sizeBytes: 0, diskBytes: 0 };
    databases = [];

    constructor(root, wish, add, progress) {
        this.#root = root;
        this.#wish = wish;
        this.#add = add;
        this.#progress = progress;
        this.#folders = [new PlannedFolder("", statusOf(root), null)];
        this.obstacles = new Obstacles(root);
    }

    /** Plan it. `before` are the entries of the state that is there now. */
    run(before) {
        for (const [path, wanted, was] of beside(folded(this.#wish.entries), folded(before))) {
            this.#progress.step();
            if (isAtOrIn(path, RESTORE_FOLDER)) {
                continue;
            }
            this.#leaveFolders(path);
            if (path === "") {
                this.#folders[0].entry = wanted;
                continue;
            }
            if (was !== null && isNothing(was)) {
                this.#notKept = path;
            }
            if (wanted === null) {
                this.#go(path, was);
            } else if (isNothing(wanted)) {
                this.#kept = path;
            } else if (!isAtOrIn(path, this.#kept)) {
                this.#want(path, wanted, was);
            }
        }
        this.#leaveFolders(null);
    }

    #want(path, wanted, was) {
        if (parentOf(path) !== this.#folders.at(-1).path) {
            throw damaged("the manifest has a path without the folder that it is in");
        }
        let status = this.#look(path);
        const isLeftOut = status !== null && this.#wish.selection.reasonToLeaveOut(path, status) !== null;
        if (isLeftOut || wanted.text === UNLISTED) {
            this.#kept = path;
            if (wanted.text !== UNLISTED) {
                return;
            }
        }
        if (wanted.kind === "dir") {
            if (status === null || !status.isDirectory()) {
                const given = { number: this.#newNumber(), was: this.#state(status) };
                this.#change(operationOf("mkdir", path, given), status, was);
                status = null;
            }
            this.#folders.push(new PlannedFolder(path, status, wanted));
            return;
        }
        if (this.#isSame(path, wanted, was, status)) {
            return;
        }
        if (status?.isDirectory()) {
            this.#aside = path;
        }
        this.totals.files += Number(wanted.kind === "file");
        this.totals.sizeBytes += wanted.sizeBytes;
        this.totals.diskBytes += blocksOf(wanted.sizeBytes);
        const put = operationOf("put", path, {
            number: this.#newNumber(),
            was: this.#state(status),
            mode: wanted.mode,
            modifiedAtNs: wanted.modifiedAtNs,
            owner: this.#owner(wanted),
            sizeBytes: wanted.sizeBytes,
            sha256: wanted.sha256,
            text: wanted.kind === "link" ? wanted.text : null,
        });
        this.#change(put, status, was);
        if (wanted.isDatabase) {
            this.#putSideFilesAside(path);
        }
    }

    /** See to what the snapshot doesn't have. */
    #go(path, was) {
        if (isNothing(was) || isAtOrIn(path, this.#kept)) {
            return;
        }
        const status = this.#look(path);
        if (status === null) {
            return;
        }
        if (isAtOrIn(path, this.#aside)) {
            this.#change(operationOf("look", path, { was: stateOf(status) }), status, was);
            return;
        }
        if (!this.#wish.removes || this.#wish.selection.reasonToLeaveOut(path, status) !== null) {
            return;
        }
        if (status.isDirectory()) {
            this.#folders.push(new PlannedFolder(path, status, null, true));
            return;
        }
        this.#putAside(path, status, was);
        if (was.isDatabase) {
            this.#putSideFilesAside(path);
        }
    }

    #putAside(path, status, was, isNew = true) {
        const given = { number: this.#newNumber(), was: stateOf(status) };
        this.#change(operationOf("aside", path, given), status, was, isNew);
    }

    #putSideFilesAside(database) {
        this.databases.push(database);
        for (const path of sideFiles(database)) {
            const status = this.#look(path);
            if (status !== null && !status.isDirectory()) {
                // What was in the WAL is in the state before; what the snapshot has of it comes after this.
                this.#putAside(path, status, null, false);
            }
        }
    }

    /** Plan a change at a path, where there is now what `status` tells of, and `was` was when it was kept. */
    #change(operation, status, was, isNew = true) {
        if (operation.kind !== "look") {
            this.#enter(this.#folders.at(-1));
        }
        if (status !== null) {
            this.obstacles.lookAtOld(operation.path, status);
            if (isNew && !isAtOrIn(operation.path, this.#notKept)) {
                this.obstacles.lookForChange(operation.path, status, was);
            }
        }
        this.#add(operation);
    }

    #enter(folder) {
        const { path, status } = folder;
        if (status === null || folder.isEntered) {
            return;
        }
        folder.isEntered = true;
        this.obstacles.lookAtFolder(path, status);
        const owner = this.#isRoot ? [Number(status.uid), Number(status.gid)] : null;
        this.#add(operationOf("enter", path, { mode: modeOf(status), modifiedAtNs: status.mtimeNs, owner }));
    }

    #leaveFolders(path) {
        while (this.#folders.length > 1 && (path === null || !this.#folders.at(-1).has(path))) {
            this.#leave(this.#folders.pop());
        }
        if (path === null) {
            this.#leave(this.#folders[0]);
        }
    }

    #leave(folder) {
        const { path, status, entry } = folder;
        if (folder.goes) {
            this.obstacles.lookAtOld(path, status);
            this.#enter(this.#folders.at(-1));
            this.#enter(folder);
            this.#add(operationOf("rmdir", path, { mode: modeOf(status) }));
        } else if (status === null) {
            this.#addLeaving(entry);
        } else if (entry === null || !this.#wish.removes) {
            // Nothing tells what it was like, so only what was changed to get in is taken back.
            if (folder.isEntered) {
                this.#add(operationOf("leave", path, { mode: modeOf(status) }));
            }
        } else if (folder.isEntered || entry.mode !== modeOf(status) || entry.modifiedAtNs !== status.mtimeNs) {
            this.#enter(folder);
            this.#addLeaving(entry);
        }
    }

    #addLeaving(entry) {
        const { path, mode, modifiedAtNs } = entry;
        this.#add(operationOf("leave", path, { mode, modifiedAtNs, owner: this.#owner(entry) }));
    }

    /** What is at `path` now; not through a link in whose place a folder comes. */
    #look(path) {
        return this.#folders.at(-1).status === null ? null : statusIfThere(below(this.#root, path));
    }

    #state(status) {
        if (status !== null) {
            return stateOf(status);
        }
        return this.#folders.at(-1).status === null ? null : [];
    }

    /** Whether what is there is what is wanted, and can stay. */
    #isSame(path, wanted, was, status) {
        if (was === null || status === null || was.kind !== wanted.kind || wanted.isDatabase || was.isDatabase) {
            return false;
        }
        if (this.#isRoot && String(was.owner) !== String(wanted.owner)) {
            return false;
        }
        if (wanted.kind === "link") {
            const target = ifPossible(() => readLink(below(this.#root, path)));
            return target !== null && wireName(target) === wanted.text;
        }
        const isThere = ({ sizeBytes, modifiedAtNs, mode }) =>
            Number(status.size) === sizeBytes && status.mtimeNs === modifiedAtNs && modeOf(status) === mode;
        return status.isFile() && wanted.sha256 === was.sha256 && isThere(wanted) && isThere(was);
    }

    #owner(entry) {
        return this.#isRoot ? entry.owner : null;
    }

    #newNumber() {
        this.#number += 1;
        return this.#number;
    }
}

const isNothing = ({ kind }) => kind === "leftOut" || kind === "failed";
const isAtOrIn = (path, top) => top !== null && (path === top || path.startsWith(`${top}/`));
const parentOf = (path) => (path.includes("/") ? dirName(path) : "");

/**
 * One entry for each path: what is there, before what was wrong with it.
 *
 * A folder that couldn't be listed to its end is told of a second time behind what is in it; that is passed over.
 */
export function* folded(entries) {
    let last = null;
    for (const entry of entries) {
        if (last !== null && entry.path === last.path) {
            if (isNothing(last)) {
                last = entry;
            } else if (last.kind === "dir") {
                last = { ...last, text: UNLISTED };
            }
            continue;
        }
        if (last !== null) {
            if (compareOrder(entry.path, last.path) < 0) {
                continue;
            }
            yield last;
        }
        last = entry;
    }
    if (last !== null) {
        yield last;
    }
}

/** Each path that one of the two has, in order, with what each has there. */
function* beside(ones, others) {
    const next = (entries) => entries.next().value ?? null;
    let [one, other] = [next(ones), next(others)];
    while (one !== null || other !== null) {
        const order = one === null ? 1 : other === null ? -1 : compareOrder(one.path, other.path);
        yield [order > 0 ? other.path : one.path, order > 0 ? null : one, order < 0 ? null : other];
        [one, other] = [order > 0 ? one : next(ones), order < 0 ? other : next(others)];
    }
}
