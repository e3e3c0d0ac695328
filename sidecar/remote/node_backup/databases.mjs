// Copy SQLite databases through SQLite, in one read transaction, and check what came of it: the twin of
// sidecar/backup/databases.py.

import { Trouble, unreadable } from "./errors.mjs";
import { doAside, waitAWhile } from "./aside.mjs";
import { MAX_DATABASE_BUSY_MS } from "./backup_limits.mjs";
import { copyBytes, copyFile, digestOf, keepStatus } from "./copying.mjs";
import { BUSY_RETRY_MS } from "./limits.mjs";
import { sideFiles } from "./rules.mjs";
import { holds, isOnSharedFileSystem, isSame, isSameLook, isSettled, lookAt, wayIn } from "./sqlite_files.mjs";
import { FULL, NO_DATABASE, PASSING, sqlite, takesUris, Unsettled, uriOf } from "./sqlite_open.mjs";
import { describe, isOfSystem, makeEmptyFile, realPathOf, statusOf, unlinkIfThere } from "./system_words.mjs";
import { decoded, encoded } from "./text.mjs";

const NO_BACKUP = "to copy a database takes Node 22.16 or newer, or Python 3.8 with sqlite3, on the host";

/** What SQLite said, by its code. */
class SqliteError extends Error {
    constructor({ message, code }) {
        super(encoded(message));
        this.sqliteCode = code;
    }
}

/**
 * Copy one state of a database, whole; with mode, times and owner of its file: `{ copied, problem }`.
 *
 * Null if it is none after all. A damaged one is copied as its file is.
 */
export function copyOfDatabase(source, target, progress) {
    const path = realPathOf(source);
    const giveUpAt = Date.now() + MAX_DATABASE_BUSY_MS;
    const doneBefore = progress.bytesCopied;
    let status;
    let problem;
    for (;;) {
        let trouble;
        progress.bytesCopied = doneBefore;
        status = statusOfSource(source);
        try {
            const look = lookAt(path);
            if (!holds(look.database) && !holds(look.wal)) {
                return null;
            }
            problem = copyState(path, look, target, progress);
            break;
        } catch (error) {
            if (error instanceof Unsettled) {
                trouble = "the database changes all the time";
            } else if (!(error instanceof SqliteError)) {
                throw error;
            } else if (error.sqliteCode === NO_DATABASE) {
                return null;
            } else if (error.sqliteCode === FULL) {
                throw new Trouble("no_space", `no space left on device: ${error.message}`);
            } else if (PASSING.has(error.sqliteCode)) {
                trouble = `the database stays locked: ${error.message}`;
            } else {
                progress.bytesCopied = doneBefore;
                const what = `the database is damaged, and was copied as its file is: ${error.message}`;
                return { copied: copyFile(source, target, progress), problem: what };
            }
        }
        if (Date.now() >= giveUpAt) {
            throw unreadable(trouble);
        }
        waitAWhile(BUSY_RETRY_MS, () => progress.step());
    }
    progress.bytesCopied = doneBefore;
    const sha256 = digestOf(target, progress);
    keepStatus(target, status);
    return { copied: { sha256, sizeBytes: Number(statusOf(target).size), status }, problem };
}

function statusOfSource(source) {
    try {
        return statusOf(source);
    } catch (error) {
        throw isOfSystem(error, "ENOENT") ? error : unreadable(describe(error));
    }
}

/** Copy the database to `target` and check it there: what is wrong with it, or null. */
function copyState(path, look, target, progress) {
    if (typeof sqlite?.backup !== "function" || !takesUris()) {
        throw unreadable(NO_BACKUP);
    }
    [target, ...sideFiles(target)].forEach(unlinkIfThere);
    const way = isOnSharedFileSystem(path) ? "copy" : wayIn(look);
    if (way === "copy") {
        copyRecovered(path, look, target, progress);
    } else if (way === "shared") {
        copyThroughSqlite(uriOf(path, "mode=ro&readonly_shm=1"), true, target, progress);
    } else {
        if (!isSettled(look)) {
            throw new Unsettled();
        }
        copyThroughSqlite(uriOf(path, "mode=ro&immutable=1"), true, target, progress);
        if (!isSameLook(lookAt(path), look)) {
            throw new Unsettled();
        }
    }
    return problemOf(target, progress);
}

/** Copy the files of a database that crashed, or that another kernel has open, and let SQLite recover the copy. */
function copyRecovered(path, look, target, progress) {
    const raw = `${target}.raw`;
    try {
        const stamps = { "": look.database, "-wal": look.wal, "-journal": look.journal };
        for (const [suffix, stamp] of Object.entries(stamps)) {
            if (holds(stamp)) {
                copyBytes(path + suffix, raw + suffix, progress);
            }
        }
        const now = lookAt(path);
        // A WAL that has grown is a later state; every commit in it has its checksum.
        if (!isSame(now.database, look.database) || !isSame(now.journal, look.journal)) {
            throw new Unsettled();
        }
        // Only a journal has to be rolled back, which writes.
        const isWritten = holds(look.journal);
        copyThroughSqlite(uriOf(raw, isWritten ? "mode=rw" : "mode=ro"), !isWritten, target, progress);
    } finally {
        [raw, ...sideFiles(raw)].forEach(unlinkIfThere);
    }
}

function copyThroughSqlite(source, readOnly, target, progress) {
    makeEmptyFile(target);
    let countedBytes = 0;
    let since = Date.now();
    const look = (doneBytes) => {
        if (doneBytes > countedBytes) {
            since = Date.now();
        } else if (Date.now() - since > MAX_DATABASE_BUSY_MS) {
            throw unreadable("the database stays locked while it is copied");
        }
        progress.step(Math.max(0, doneBytes - countedBytes));
        countedBytes = Math.max(doneBytes, countedBytes);
    };
    // Older Nodes take no URI here, and no path takes what is no UTF-8.
    const path = encoded(decoded(target)) === target ? decoded(target) : uriOf(target, "mode=rw");
    const { error } = doAside("copyPages", { source, readOnly, target: path }, look);
    if (error !== undefined) {
        throw error.code === null ? new Error(error.message) : new SqliteError(error);
    }
}

/** What SQLite finds wrong with the database at `target`; null if it finds nothing. */
function problemOf(target, progress) {
    const uri = uriOf(target, "mode=ro&immutable=1");
    const { value, error } = doAside("check", { uri }, () => progress.step());
    const found = error === undefined ? value : encoded(error.message);
    return found === "ok" ? null : `the database is damaged: ${found}`;
}
