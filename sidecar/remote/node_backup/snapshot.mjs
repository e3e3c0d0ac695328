// Make a snapshot: the twin of sidecar/backup/snapshot.py.

import fs from "node:fs";

import { SystemError } from "./errors.mjs";
import { MAX_NAME_BYTES } from "./backup_limits.mjs";
import { copyFile, ownerOf, StoppedAt } from "./copying.mjs";
import { copyOfDatabase } from "./databases.mjs";
import { blocksOf, checkSpace, hasSpace, orNoSpace, syncTree } from "./disk.mjs";
import { snapshotOf } from "./folder.mjs";
import { entryOf, isSameEntry, ManifestWriter } from "./manifest.mjs";
import { DATABASE_MAGIC, isDatabaseName, phaseOf, Selection } from "./rules.mjs";
import { isUnchanged, sourceOf, withPreviousSnapshot } from "./sharing.mjs";
import { rfc3339 } from "./snapshot_names.mjs";
import {
    describe,
    ifPossible,
    isOfSystem,
    isTrouble,
    makeFolder,
    makeLink,
    modeOf,
    move,
    openNew,
    readLink,
    setTimes,
    statusThrough,
    unlinkIfThere,
} from "./system_words.mjs";
import { baseName, joined, wireName } from "./text.mjs";
import { below, walk } from "./tree.mjs";

/** Make a snapshot of the tree at `root`. What couldn't be read is named in it, and makes it `incomplete`. */
export function createSnapshot(root, folder, { includeSessions, share }, progress) {
    const createdAtMs = Date.now();
    const head = { createdAt: rfc3339(createdAtMs), source: wireName(root), includeSessions };
    progress.phase = "snapshot";
    try {
        return folder.staging((staging) => {
            // Not before: ClawPal's directory, which staging makes, can't be told by its identity while it isn't there.
            const selection = new Selection(includeSessions, folder.clawpalDir);
            let neededBytes = expectAll(root, selection, progress);
            if (share && !hasSpace(folder.path, neededBytes)) {
                neededBytes -= shareableBytes(root, folder, selection, progress);
            }
            checkSpace(folder.path, neededBytes);
            const foot = withPreviousSnapshot(folder, (previous) =>
                writeAll({ root, staging, selection, head, progress, previous: share ? previous : null }),
            );
            progress.currentPath = null;
            syncTree(staging.path, progress);
            const name = folder.publish(staging, createdAtMs);
            return snapshotOf(name, joined(folder.path, name), head, foot);
        });
    } catch (error) {
        throw orNoSpace(error);
    }
}

function writeAll({ root, staging, selection, head, progress, previous }) {
    const fd = openNew(staging.manifest);
    try {
        const writer = new ManifestWriter(fd, head);
        new TreeCopy(root, staging.tree, writer, progress, previous).run(selection);
        return writer.close();
    } finally {
        fs.closeSync(fd);
    }
}

/** Tell `progress` what is to come; how much of a disk that takes. */
function expectAll(root, selection, progress) {
    let [files, sizeBytes, neededBytes] = [0, 0, 0];
    for (const found of walk(root, selection)) {
        progress.step();
        if (found.kind === "file") {
            const expected = expectedBytes(root, found);
            files += 1;
            sizeBytes += expected;
            neededBytes += blocksOf(expected);
        }
    }
    progress.expect(files, sizeBytes);
    return neededBytes;
}

/** How much of that need not be taken, since the snapshot before has it. */
function shareableBytes(root, folder, selection, progress) {
    return withPreviousSnapshot(folder, (previous) => {
        let sizeBytes = 0;
        for (const found of walk(root, selection)) {
            progress.step();
            const before = found.kind === "file" ? previous.fileAt(found.path) : null;
            if (before !== null && isUnchanged(before, below(root, found.path), found.status)) {
                sizeBytes += blocksOf(expectedBytes(root, found));
            }
        }
        return sizeBytes;
    });
}

function expectedBytes(root, { path, status }) {
    // A young database lies almost wholly in its WAL.
    const wal = isDatabaseName(path) ? ifPossible(() => statusThrough(`${below(root, path)}-wal`)) : null;
    return Number(status.size) + Number(wal?.size ?? 0);
}

/** Copies what a walk finds into a staged tree, and says so in its manifest. */
class TreeCopy {
    #root;
    #tree;
    #writer;
    #progress;
    #previous;
    #openFolders = [];

    constructor(root, tree, writer, progress, previous) {
        this.#root = root;
        this.#tree = tree;
        this.#writer = writer;
        this.#progress = progress;
        this.#previous = previous;
    }

    run(selection) {
        for (const found of walk(this.#root, selection)) {
            this.#progress.step();
            [this.#progress.phase, this.#progress.currentPath] = [phaseOf(found.path), found.path];
            this.#leaveFolders(found.path);
            if (found.kind === "file") {
                this.#addFile(found);
            } else if (found.kind === "dir") {
                this.#addFolder(found);
            } else if (found.kind === "link") {
                this.#addLink(found);
            } else {
                this.#addText(found.kind, found.path, found.text);
            }
        }
        this.#leaveFolders(null);
    }

    #addText(kind, path, text) {
        this.#writer.add(entryOf(kind, path, { text: wireName(text) }));
    }

    #addFolder({ path, status }) {
        const mode = modeOf(status);
        // Whatever its mode, it must be possible to fill it now and to empty it one day; the manifest has its mode.
        makeFolder(below(this.#tree, path), mode | 0o700);
        this.#openFolders.push({ path, modifiedAtNs: status.mtimeNs });
        this.#writer.add(entryOf("dir", path, { mode, modifiedAtNs: status.mtimeNs, owner: ownerOf(status) }));
    }

    /** Give the folders that `next` isn't in their times, now that nothing comes into them any more. */
    #leaveFolders(next) {
        while (this.#openFolders.length > 0) {
            const { path, modifiedAtNs } = this.#openFolders.at(-1);
            if (next !== null && (path === "" || next.startsWith(`${path}/`))) {
                return;
            }
            setTimes(below(this.#tree, path), modifiedAtNs);
            this.#openFolders.pop();
        }
    }

    #addLink({ path, status }) {
        let target;
        try {
            target = readLink(below(this.#root, path));
        } catch (error) {
            if (!(error instanceof SystemError)) {
                throw error;
            }
            if (error.code !== "ENOENT") {
                this.#addText("failed", path, describe(error));
            }
            return;
        }
        makeLink(target, below(this.#tree, path));
        this.#writer.add(entryOf("link", path, { text: wireName(target), owner: ownerOf(status) }));
    }

    #addFile(found) {
        const progress = this.#progress;
        const [source, target] = [below(this.#root, found.path), below(this.#tree, found.path)];
        const expected = expectedBytes(this.#root, found);
        const doneBefore = progress.bytesCopied;
        const before = this.#previous?.fileAt(found.path) ?? null;
        let entry = null;
        try {
            entry = this.#shared(found, before, target) ?? this.#copied(found, source, target, before);
        } catch (error) {
            if (isTrouble(error, "source_unreadable")) {
                this.#addText("failed", found.path, error.message);
            } else if (!isOfSystem(error, "ENOENT") || (error.given !== null && error.given !== source)) {
                throw error;
            }
        }
        if (entry === null) {
            unlinkIfThere(target);
            progress.bytesCopied = doneBefore;
            progress.filesTotal -= 1;
            progress.bytesTotal -= expected;
            return;
        }
        this.#writer.add(entry);
        progress.bytesCopied = doneBefore + entry.sizeBytes;
        progress.doneWith(expected, entry.sizeBytes);
    }

    /** The entry of a file that is as it was in the snapshot before, and is shared with it; else null. */
    #shared({ path, status }, before, target) {
        if (before === null || !isUnchanged(before, below(this.#root, path), status)) {
            return null;
        }
        return this.#previous.share(before, target, this.#progress) ? before : null;
    }

    #copied({ path, status }, source, target, before) {
        // Of before it was copied: if it changes meanwhile, the next backup copies it again.
        const cameFrom = sourceOf(source, status);
        let database = isDatabaseName(path) ? copyOfDatabase(source, target, this.#progress) : null;
        let copied = database?.copied;
        if (copied === undefined) {
            try {
                copied = copyFile(source, target, this.#progress, DATABASE_MAGIC);
            } catch (error) {
                if (!(error instanceof StoppedAt)) {
                    throw error;
                }
                database = copyOfDatabase(source, target, this.#progress);
                copied = database?.copied ?? copyFile(source, target, this.#progress);
            }
        }
        const problem = database?.problem ?? null;
        const entry = entryOf("file", path, {
            mode: modeOf(copied.status),
            modifiedAtNs: copied.status.mtimeNs,
            sizeBytes: copied.sizeBytes,
            sha256: copied.sha256,
            text: problem === null ? "" : wireName(problem),
            owner: ownerOf(copied.status),
            isDatabase: database !== null,
            source: problem === null ? cameFrom : null,
        });
        if (before !== null && isSameEntry(before, entry)) {
            this.#shareAfterAll(before, target);
        }
        return entry;
    }

    /** Share a file that was copied, and turned out to be what the snapshot before has. */
    #shareAfterAll(before, target) {
        const other = `${target}.shared`;
        const done = this.#progress.bytesCopied;
        if (baseName(other).length <= MAX_NAME_BYTES && this.#previous.share(before, other, this.#progress)) {
            move(other, target);
        }
        this.#progress.bytesCopied = done;
    }
}
