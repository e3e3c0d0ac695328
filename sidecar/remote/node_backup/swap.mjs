// Do the operations of a journal, or undo them, each so that it can be done again: the twin of sidecar/backup/swap.py.

import fs from "node:fs";

import { system } from "./errors.mjs";
import { isFolder, moveInTree, takeStep } from "./journal.mjs";
import { isLexically, makeFolder, setMode, setOwner, setTimes, unless } from "./system_words.mjs";
import { asPath } from "./text.mjs";

/** Do what `operation` says, or what is left of it. */
export function forward(workspace, operation) {
    const { kind, number, mode } = operation;
    const path = workspace.full(operation.path);
    if (kind === "put") {
        if (isLexically(workspace.newAt(number))) {
            moveAside(workspace, path, number);
            moveInTree(workspace.newAt(number), path);
        }
    } else if (kind === "aside") {
        moveAside(workspace, path, number);
    } else if (kind === "mkdir") {
        if (!isFolder(path)) {
            moveAside(workspace, path, number);
            makeFolderInTree(path);
        }
    } else if (kind === "rmdir") {
        if (!removeFolder(path)) {
            setModeInTree(path, mode);
        }
    } else if (kind === "enter") {
        makeWritable(path, mode);
    } else if (kind === "leave") {
        setStatus(path, operation);
    }
}

/** Undo what `operation` says, as far as it was done. */
export function back(workspace, operation) {
    const { kind, number, mode } = operation;
    const path = workspace.full(operation.path);
    if (kind === "put") {
        if (!isLexically(workspace.newAt(number)) && isLexically(path)) {
            moveInTree(path, workspace.newAt(number));
        }
        moveBack(workspace, path, number);
    } else if (kind === "aside") {
        moveBack(workspace, path, number);
    } else if (kind === "mkdir") {
        if (isFolder(path)) {
            removeFolder(path);
        }
        moveBack(workspace, path, number);
    } else if (kind === "rmdir") {
        if (!isFolder(path)) {
            makeFolderInTree(path);
        }
    } else if (kind === "enter") {
        setStatus(path, operation);
    } else if (kind === "leave") {
        makeWritable(path, mode);
    }
}

function moveAside(workspace, path, number) {
    if (!isLexically(workspace.oldAt(number))) {
        unless(["ENOENT"], () => moveInTree(path, workspace.oldAt(number)));
    }
}

function moveBack(workspace, path, number) {
    if (isLexically(workspace.oldAt(number))) {
        moveInTree(workspace.oldAt(number), path);
    }
}

function makeFolderInTree(path) {
    takeStep();
    makeFolder(path, 0o700);
}

/** Remove a folder if it is empty; false if it isn't. */
function removeFolder(path) {
    takeStep();
    const remove = () => {
        unless(["ENOENT"], () => system(path, () => fs.rmdirSync(asPath(path))));
        return true;
    };
    return unless(["ENOTEMPTY", "EEXIST"], remove) ?? false;
}

/** Let a folder of this mode be changed for a while. */
function makeWritable(path, mode) {
    if ((mode & 0o700) !== 0o700) {
        setModeInTree(path, mode | 0o700);
    }
}

function setModeInTree(path, mode) {
    takeStep();
    ifOurs(() => setMode(path, mode));
}

function setStatus(path, { owner, mode, modifiedAtNs }) {
    if (owner !== null) {
        takeStep();
        ifOurs(() => setOwner(path, owner));
    }
    setModeInTree(path, mode);
    if (modifiedAtNs !== 0n) {
        takeStep();
        ifOurs(() => setTimes(path, modifiedAtNs));
    }
}

/** Of a folder that is another's, but may be written to, mode and times stay as they are. */
function ifOurs(change) {
    unless(["ENOENT", "EACCES", "EPERM"], change);
}
