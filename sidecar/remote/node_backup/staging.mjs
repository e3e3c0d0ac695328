// What a snapshot holds, and copies of it in the place from where they are renamed: the twin of
// sidecar/backup/staging.py.

import fs from "node:fs";

import { system } from "./errors.mjs";
import { clone, copyFile, digestOf, ownerOf } from "./copying.mjs";
import { readOperations } from "./journal.mjs";
import { damaged, entryOf, ManifestReader } from "./manifest.mjs";
import { databaseBeside, phaseOf, Selection } from "./rules.mjs";
import {
    isLexically,
    isOfSystem,
    isTrouble,
    makeLink,
    modeOf,
    readLink,
    setMode,
    setOwner,
    setTimes,
    statusOf,
    statusThrough,
    unless,
} from "./system_words.mjs";
import { asPath, encoded, fileName, wireName } from "./text.mjs";
import { below, isDatabase, walk } from "./tree.mjs";

/** What `use` returns, given what a snapshot wants a tree to be; without a manifest: to have what is in its folder. */
export function withWish(folder, snapshot, use) {
    const path = folder.manifestOf(snapshot.name);
    if (!isLexically(path)) {
        const selection = new Selection(true, folder.clawpalDir);
        return use({ entries: entriesIn(snapshot.path, selection), selection, removes: false });
    }
    const reader = new ManifestReader(path);
    try {
        const selection = new Selection(Boolean(reader.head.includeSessions), folder.clawpalDir);
        return use({ entries: reader.entries(), selection, removes: true });
    } finally {
        reader.close();
    }
}

/** What lies in the folder of a snapshot that has no manifest; its files weren't copied through SQLite. */
function* entriesIn(tree, selection) {
    for (const { kind, path, status, text } of walk(tree, null)) {
        if (status === null) {
            throw damaged(`${path} can't be restored: ${text}`);
        }
        const fullPath = below(tree, path);
        const given = { mode: modeOf(status), modifiedAtNs: status.mtimeNs, owner: ownerOf(status) };
        if (kind === "leftOut" || (path !== "" && selection.reasonToLeaveOut(path, status) !== null)) {
            yield entryOf("leftOut", path);
        } else if (kind === "dir") {
            yield entryOf("dir", path, given);
        } else if (kind === "link") {
            yield entryOf("link", path, { text: wireName(readLink(fullPath)), owner: ownerOf(status) });
        } else if (!(path.endsWith("-shm") && isOfDatabase(tree, path))) {
            // A -shm is made anew of the -wal, and only what was written together may lie together.
            const file = { ...given, sizeBytes: Number(status.size), isDatabase: isDatabase(fullPath) };
            yield entryOf("file", path, file);
        }
    }
}

function isOfDatabase(tree, path) {
    const database = below(tree, databaseBeside(path));
    const status = unless(["ENOENT", "ENOTDIR"], () => statusThrough(database));
    return status !== null && status.isFile() && isDatabase(database);
}

/** Copy what the plan puts into the tree from that of the snapshot. Nothing is shared with it. */
export function stageAll(workspace, tree, progress) {
    let canClone = true;
    for (const operation of readOperations(workspace.plan)) {
        progress.step();
        if (operation.kind !== "put") {
            continue;
        }
        [progress.phase, progress.currentPath] = [phaseOf(operation.path), operation.path];
        const target = workspace.newAt(operation.number);
        if (operation.text !== null) {
            stageLink(operation, target);
            continue;
        }
        const source = below(tree, operation.path);
        let digest;
        try {
            canClone = canClone && clone(source, target);
            digest = canClone ? digestOf(target, progress) : copyFile(source, target, progress).sha256;
        } catch (error) {
            if (isTrouble(error, "source_unreadable")) {
                throw damagedAt(operation, error.message);
            }
            throw isOfSystem(error, "ENOENT") && error.given === source ? damagedAt(operation, "it is missing") : error;
        }
        if (operation.sha256 !== "" && digest !== operation.sha256) {
            throw damagedAt(operation, "its content is not what was backed up");
        }
        setStagedStatus(target, operation);
        progress.doneWith(operation.sizeBytes, Number(statusOf(target).size));
    }
}

function stageLink({ text, owner }, target) {
    makeLink(fileName(text), target);
    if (owner !== null) {
        system(target, () => fs.lchownSync(asPath(target), ...owner));
    }
}

function setStagedStatus(path, { owner, mode, modifiedAtNs }) {
    if (owner !== null) {
        setOwner(path, owner);
    }
    setMode(path, mode);
    setTimes(path, modifiedAtNs);
}

function damagedAt({ path }, words) {
    const failures = [{ path: wireName(path), error: wireName(words) }];
    const message = `the backup is damaged: ${path}: ${encoded(failures[0].error)}`;
    return damaged(message, { failedItems: 1, failures });
}
