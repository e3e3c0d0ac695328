// Check that a snapshot holds what its manifest says: the twin of sidecar/backup/verify.py.

import { isTold, Trouble } from "./errors.mjs";
import { MAX_REPORTED_FAILURES } from "./backup_limits.mjs";
import { digestOf } from "./copying.mjs";
import { damaged, ManifestReader, manifestEnds } from "./manifest.mjs";
import { compareOrder, phaseOf } from "./rules.mjs";
import { describe, isLexically, isTrouble, readLink } from "./system_words.mjs";
import { baseName, encoded, wireName } from "./text.mjs";
import { below, walk } from "./tree.mjs";

/** The snapshot of this name, if it is as it was made; throws an error that names what isn't. */
export function verifySnapshot(folder, name, progress) {
    const snapshot = folder.find(name);
    const path = folder.manifestOf(name);
    if (!isLexically(path)) {
        throw new Trouble("backup_unverified", `the backup "${name}" has no manifest to be checked against`);
    }
    const differences = new Differences();
    try {
        const { foot } = manifestEnds(path);
        progress.expect(foot.files, foot.sizeBytes);
        const reader = new ManifestReader(path);
        try {
            compareAll(snapshot.path, reader.entries(), progress, differences);
        } finally {
            reader.close();
        }
    } catch (error) {
        if (!isTrouble(error, "backup_damaged")) {
            throw error;
        }
        differences.add(baseName(path), error.message);
    }
    const { failedItems, failures } = differences;
    if (failedItems > 0) {
        const first = `${encoded(failures[0].path)}: ${encoded(failures[0].error)}`;
        const more = failedItems > 1 ? `, and ${failedItems - 1} more` : "";
        throw damaged(`the backup "${name}" is damaged: ${first}${more}`, { failedItems, failures });
    }
    return snapshot;
}

/** Counts what is not as it was, and keeps the first. */
class Differences {
    failedItems = 0;
    failures = [];

    add(path, error) {
        this.failedItems += 1;
        if (this.failures.length < MAX_REPORTED_FAILURES) {
            this.failures.push({ path: wireName(path), error: wireName(error) });
        }
    }
}

/** Go through the manifest and the tree side by side; both are in the same order. */
function compareAll(tree, entries, progress, differences) {
    const there = walk(tree, null);
    const next = () => there.next().value ?? null;
    let found = next();
    const passOver = () => {
        differences.add(found.path, "it is not in the manifest");
        found = next();
    };
    for (const entry of entries) {
        progress.step();
        if (entry.kind !== "file" && entry.kind !== "dir" && entry.kind !== "link") {
            continue;
        }
        [progress.phase, progress.currentPath] = [phaseOf(entry.path), entry.path];
        while (found !== null && compareOrder(found.path, entry.path) < 0) {
            passOver();
        }
        if (found === null || found.path !== entry.path) {
            differences.add(entry.path, "it is missing");
            continue;
        }
        const difference = differenceOf(tree, entry, found, progress);
        if (difference !== null) {
            differences.add(entry.path, difference);
        }
        found = next();
    }
    while (found !== null) {
        passOver();
    }
}

function differenceOf(tree, entry, found, progress) {
    const path = below(tree, entry.path);
    if (found.kind === "failed") {
        return found.text;
    }
    if (found.kind !== entry.kind) {
        return `it is no ${entry.kind}`;
    }
    try {
        if (entry.kind === "link") {
            return wireName(readLink(path)) === entry.text ? null : "the link leads elsewhere";
        }
        if (entry.kind === "file") {
            if (Number(found.status.size) !== entry.sizeBytes) {
                return `it has ${found.status.size} bytes, not ${entry.sizeBytes}`;
            }
            if (digestOf(path, progress) !== entry.sha256) {
                return "its content is not what was backed up";
            }
            progress.filesCopied += 1;
        }
    } catch (error) {
        if (!isTold(error) || isTrouble(error, "cancelled")) {
            throw error;
        }
        return describe(error);
    }
    return null;
}
