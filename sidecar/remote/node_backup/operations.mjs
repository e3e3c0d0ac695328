// What can be asked for of backups, by name; in the script for backups this stands in place of node/operations.mjs.

import { PROGRESS_MS } from "./backup_limits.mjs";
import { BackupFolder } from "./folder.mjs";
import { findClawpalDir } from "./locations.mjs";
import { out } from "./output.mjs";
import { Progress } from "./progress.mjs";
import { recover } from "./recovery.mjs";
import { restoreTree } from "./restore.mjs";
import { createSnapshot } from "./snapshot.mjs";
import { checkedName } from "./snapshot_names.mjs";
import { wireName } from "./text.mjs";
import { verifySnapshot } from "./verify.mjs";

/** Says how far the work has come, not more often than anyone can look. */
class Reporter {
    #saidAt = 0;

    constructor() {
        this.progress = new Progress(() => {
            if (Date.now() - this.#saidAt >= PROGRESS_MS) {
                this.say();
            }
            out.tick();
        });
    }

    say() {
        this.#saidAt = Date.now();
        const { phase, filesCopied, bytesCopied, filesTotal, bytesTotal, currentPath } = this.progress;
        const path = currentPath === null ? null : wireName(currentPath);
        out.record("progress", phase, filesCopied, bytesCopied, filesTotal, bytesTotal, path);
    }

    sayDone() {
        this.progress.phase = "done";
        this.say();
    }
}

function tellSnapshot(name, snapshot) {
    const { createdAt, sizeBytes, status, failedItems, failures } = snapshot;
    const [shown, path] = [snapshot.name, snapshot.path].map(wireName);
    out.record(name, shown, path, createdAt, sizeBytes, status, failedItems, failures);
}

/** End what crashed: finish an interrupted restore or take it back, and remove what was staged. */
function endWhatCrashed(root, folder) {
    recover(root);
    folder.clearLeftovers();
}

function backUp(root, folder, { includeSessions, share }) {
    endWhatCrashed(root, folder);
    const reporter = new Reporter();
    const made = createSnapshot(root, folder, { includeSessions, share }, reporter.progress);
    reporter.sayDone();
    tellSnapshot("snapshot", made);
}

function restoreOne(root, folder, { backupName, force, share }) {
    const name = checkedName(backupName);
    endWhatCrashed(root, folder);
    const reporter = new Reporter();
    const { snapshot, previous } = restoreTree(root, folder, name, { force, share }, reporter.progress);
    reporter.sayDone();
    tellSnapshot("snapshot", snapshot);
    if (previous === null) {
        out.record("previous", null);
    } else {
        tellSnapshot("previous", previous);
    }
}

function verifyOne(root, folder, { backupName }) {
    const reporter = new Reporter();
    const verified = verifySnapshot(folder, checkedName(backupName), reporter.progress);
    reporter.sayDone();
    tellSnapshot("snapshot", verified);
}

function listAll(root, folder) {
    folder.snapshots().forEach((snapshot) => tellSnapshot("snapshot", snapshot));
}

function deleteOne(root, folder, { backupName }) {
    out.record("deleted", folder.delete(checkedName(backupName)));
}

const onFolder = (work) => (root, request) => work(root, new BackupFolder(findClawpalDir(request)), request);

/** All but a list is told that its input has ended, and then given REMOVAL_ENDS_WITHIN_MS to leave things in order. */
export const FINISHING = new Set(["backup", "restore", "verify", "delete-backup"]);
/** Whether it then says how it ended. */
export const SAYS_HOW_IT_ENDED = true;
export const OPERATIONS = {
    backup: onFolder(backUp),
    restore: onFolder(restoreOne),
    verify: onFolder(verifyOne),
    backups: onFolder(listAll),
    "delete-backup": onFolder(deleteOne),
};
