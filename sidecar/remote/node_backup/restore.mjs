// Bring a tree back to what a snapshot holds: the twin of sidecar/backup/restore.py, which explains it.

import fs from "node:fs";

import { system, SystemError, Trouble } from "./errors.mjs";
import { MAX_REPORTED_FAILURES } from "./backup_limits.mjs";
import { checkSpace, isFull, syncTree } from "./disk.mjs";
import { databasesBelow, usersOf } from "./in_use.mjs";
import { giveTreeUp, isSameState, operationLine, readOperations, stateAt, takeTree, Workspace } from "./journal.mjs";
import { LineWriter } from "./json_lines.mjs";
import { ManifestReader } from "./manifest.mjs";
import { checkUnused, inUse, notWritable } from "./obstacles.mjs";
import { folded, Planner } from "./plan.mjs";
import { ProgressWithin } from "./progress.mjs";
import { carryOut, finishRestore, SwapFailed } from "./recovery.mjs";
import { RESTORE_FOLDER, Selection } from "./rules.mjs";
import { createSnapshot } from "./snapshot.mjs";
import { stageAll, withWish } from "./staging.mjs";
import {
    describe,
    dirName,
    ifPossible,
    isLexically,
    listNames,
    makeFolder,
    openNew,
    realPathOf,
    statusThrough,
    unless,
    wordsOf,
} from "./system_words.mjs";
import { asPath, wireName } from "./text.mjs";
import { verifySnapshot } from "./verify.mjs";

/** Restore the tree at `root` from the snapshot `name`: `{ snapshot, previous }`, that of what was there, or null. */
export function restoreTree(root, folder, name, { force, share }, progress) {
    progress.phase = "snapshot";
    let snapshot = folder.find(name);
    if (isLexically(folder.manifestOf(name))) {
        snapshot = verifySnapshot(folder, name, new ProgressWithin(progress));
    }
    const real = realPathOf(root);
    const made = [];
    try {
        makeFoldersTo(real, made);
        const workspace = new Workspace(real);
        const lock = takeTree(workspace);
        if (lock === null) {
            throw inUse("in use: another restore of it is running", ["another restore of it is running"]);
        }
        try {
            return new Restore({ root, workspace, folder, snapshot, progress, force, share }).run();
        } finally {
            // Unless there is something in its folder that is to be ended first.
            if (!workspace.isOpen) {
                workspace.clear();
            }
            giveTreeUp(workspace, lock);
        }
    } catch (error) {
        for (const path of made.reverse()) {
            ifPossible(() => system(path, () => fs.rmdirSync(asPath(path))));
        }
        if (error instanceof SwapFailed && error.isUndone) {
            throw asTrouble(error.error, error.message);
        }
        throw error instanceof SystemError ? asTrouble(error, `${describe(error)}; nothing was changed`) : error;
    }
}

/** The restore of one snapshot, while the lock of the tree is held. */
class Restore {
    #given;

    constructor(given) {
        this.#given = given;
    }

    run() {
        const { workspace, folder, snapshot, progress, force } = this.#given;
        finishRestore(workspace);
        if (!force) {
            const selection = new Selection(true, folder.clawpalDir);
            checkUnused(usersOf(workspace.root, databasesBelow(workspace.root, selection, progress)));
        }
        const previous = this.#keepState();
        try {
            this.#swap(previous);
        } catch (error) {
            // The snapshot of a state that is still there is of no use.
            if (previous !== null && !(error instanceof SwapFailed && !error.isUndone)) {
                folder.delete(previous.name);
            }
            throw error;
        }
        return { snapshot, previous };
    }

    #keepState() {
        const { root, workspace, folder, progress, share } = this.#given;
        if (listNames(workspace.root).every((name) => name === RESTORE_FOLDER)) {
            return null;
        }
        return createSnapshot(root, folder, { includeSessions: true, share }, new ProgressWithin(progress));
    }

    #swap(previous) {
        const { workspace, folder, snapshot, progress, force } = this.#given;
        if (previous !== null && previous.failedItems > 0 && !force) {
            checkKept(folder, previous);
        }
        const planner = this.#plan(previous);
        planner.obstacles.checkWritable();
        if (!force) {
            checkUnused(planner.obstacles.changes);
        }
        checkSpace(workspace.root, planner.totals.diskBytes);
        workspace.prepare();
        progress.expect(planner.totals.files, planner.totals.sizeBytes);
        stageAll(workspace, snapshot.path, progress);
        syncTree(workspace.path, progress);
        if (!force) {
            checkUnused(changesOf(workspace, progress));
            checkUnused(usersOf(workspace.root, planner.databases));
        }
        progress.step();
        progress.currentPath = null;
        progress.mayBeCancelled = false;
        workspace.begin();
        carryOut(workspace);
        workspace.clear();
        progress.phase = "done";
    }

    #plan(previous) {
        const { workspace, folder, snapshot, progress } = this.#given;
        const fd = openNew(workspace.plan);
        try {
            const lines = new LineWriter(fd);
            const planner = withWish(folder, snapshot, (wish) =>
                withEntriesOf(folder, previous, (before) => {
                    const add = (operation) => lines.write(operationLine(operation));
                    const made = new Planner(workspace.root, wish, add, progress);
                    made.run(before);
                    return made;
                }),
            );
            lines.flush();
            return planner;
        } finally {
            fs.closeSync(fd);
        }
    }
}

/** What `use` returns, given what the manifest of a snapshot lists; nothing if there is no snapshot. */
function withEntriesOf(folder, snapshot, use) {
    if (snapshot === null) {
        return use([][Symbol.iterator]());
    }
    const reader = new ManifestReader(folder.manifestOf(snapshot.name));
    try {
        return use(reader.entries());
    } finally {
        reader.close();
    }
}

/** Throws if something that is there isn't in the snapshot of it. A damaged database is, as it is. */
function checkKept(folder, snapshot) {
    let failedItems = 0;
    const failures = [];
    withEntriesOf(folder, snapshot, (entries) => {
        for (const { kind, path, text } of folded(entries)) {
            if (kind === "failed") {
                failedItems += 1;
                if (failures.length < MAX_REPORTED_FAILURES) {
                    failures.push({ path: wireName(path), error: text });
                }
            }
        }
    });
    if (failures.length > 0) {
        throw notWritable("what is there now can't be kept: ", failedItems, failures);
    }
}

/** What changed since the restore was planned, each a sentence; the first. */
function changesOf(workspace, progress) {
    const changes = [];
    for (const { path, was } of readOperations(workspace.plan)) {
        progress.step();
        if (was !== null && !isSameState(stateAt(workspace.full(path)), was)) {
            changes.push(`${path} changed meanwhile`);
            if (changes.length === MAX_REPORTED_FAILURES) {
                break;
            }
        }
    }
    return changes;
}

/** Make the folder at `path` and those on the way to it, as far as they aren't there, and tell which. */
function makeFoldersTo(path, made) {
    if (unless(["ENOENT", "ENOTDIR"], () => statusThrough(path))?.isDirectory()) {
        return;
    }
    if (isLexically(path)) {
        // Says that it is no folder.
        listNames(path);
    }
    makeFoldersTo(dirName(path), made);
    makeFolder(path, 0o700);
    made.push(path);
}

function asTrouble(error, message) {
    if (isFull(error)) {
        return new Trouble("no_space", `no space left on device: ${message}`);
    }
    const failures = [{ path: wireName(error.given ?? ""), error: wordsOf(error) }];
    return new Trouble("target_not_writable", message, { failedItems: 1, failures });
}
