// End a restore that was interrupted: the twin of sidecar/backup/recovery.py.

import { SystemError, Trouble } from "./errors.mjs";
import { syncTree } from "./disk.mjs";
import {
    giveTreeUp,
    isFolder,
    readOperations,
    readOperationsBackwards,
    takeStep,
    takeTree,
    Workspace,
} from "./journal.mjs";
import { out } from "./output.mjs";
import { Progress } from "./progress.mjs";
import { back, forward } from "./swap.mjs";
import { describe, isLexically, realPathOf } from "./system_words.mjs";

/** Finish what an interrupted restore of the tree at `root` began, or undo it, and remove what it left. */
export function recover(root) {
    const workspace = new Workspace(realPathOf(root));
    const lock = isFolder(workspace.path) ? takeTree(workspace) : null;
    if (lock !== null) {
        try {
            finishRestore(workspace);
        } finally {
            giveTreeUp(workspace, lock);
        }
    }
}

/** The same while the lock is held. */
export function finishRestore(workspace) {
    try {
        if (isLexically(workspace.journal)) {
            carryOut(workspace);
        } else if (isLexically(workspace.undo)) {
            undo(workspace);
        }
    } catch (error) {
        if (!(error instanceof SwapFailed && error.isUndone)) {
            throw error;
        }
    }
    workspace.clear();
}

/** A step of a restore failed; `isUndone` tells whether the tree is as it was before. */
export class SwapFailed extends Trouble {
    constructor(error, isUndone) {
        const ending = isUndone ? "the tree is as it was" : "it is undone at the next start or backup command";
        super("source_unreadable", `the restore failed: ${describe(error)}; ${ending}`);
        this.error = error;
        this.isUndone = isUndone;
    }
}

/** Do what the journal says, and have it on the disk; what was done is undone, if it can be, where that fails. */
export function carryOut(workspace) {
    try {
        for (const operation of readOperations(workspace.journal)) {
            forward(workspace, operation);
            out.tick();
        }
        settle(workspace);
    } catch (error) {
        if (!(error instanceof SystemError)) {
            throw error;
        }
        try {
            workspace.turnBack();
            undo(workspace);
        } catch (another) {
            throw another instanceof SystemError ? new SwapFailed(error, false) : another;
        }
        throw new SwapFailed(error, true);
    }
}

function undo(workspace) {
    for (const operation of readOperationsBackwards(workspace.undo)) {
        back(workspace, operation);
        out.tick();
    }
    settle(workspace);
}

function settle(workspace) {
    const progress = new Progress(() => out.tick());
    progress.mayBeCancelled = false;
    takeStep();
    syncTree(workspace.root, progress);
    workspace.end();
}
