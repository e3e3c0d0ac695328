// Open a database and read it in short transactions: the twin of sidecar/stores/sqlite_open.py.

import fs from "node:fs";
import process from "node:process";

import { broken, SystemError, Trouble, unreadable } from "./errors.mjs";
import { isThere } from "./files.mjs";
import { BUSY_RETRY_MS, BUSY_TIMEOUT_MS, CACHE_KIB, LOOK_AGAIN_MS, MAX_BUSY_MS } from "./limits.mjs";
import { out } from "./output.mjs";
import {
    copyDatabase,
    holds,
    isOnSharedFileSystem,
    isSame,
    isSameLook,
    isSettled,
    lookAt,
    stampOf,
    wayIn,
} from "./sqlite_files.mjs";
import { asBytes, asPath, encoded } from "./text.mjs";
import { privateFolder, sleep } from "./watchdog.mjs";

// Undefined where Node doesn't have it, or wants a flag for it; an import of what isn't there could not be caught.
export const sqlite = process.getBuiltinModule?.("node:sqlite");

const NO_SQLITE = "the database needs Node 22.13 or newer, or Python 3 with sqlite3, on the host";

const [PERM, BUSY, LOCKED, NO_MEMORY, READ_ONLY, IO_ERROR] = [3, 5, 6, 7, 8, 10];
export const [CORRUPT, FULL, CANT_OPEN, PROTOCOL, NO_DATABASE] = [11, 13, 14, 15, 26];
// What a writer brings about that will soon be done. A reader that may not write finds "read only" where another
// process is just about to make the index of its WAL anew.
export const PASSING = new Set([BUSY, LOCKED, PROTOCOL, READ_ONLY]);
const UNREADABLE = new Set([CANT_OPEN, IO_ERROR, PERM, NO_MEMORY]);

/** The database changes as we look; try again. */
export class Unsettled extends Error {}

export function uriOf(path, how) {
    const escape = (character) => `%${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
    return `file:${path.replace(/[^A-Za-z0-9/._-]/g, escape)}?${how}`;
}

let urisAreTaken = null;

/** Whether this Node hands a `file:` URI to SQLite as one, which else would be the name of a file. */
export function takesUris() {
    if (urisAreTaken === null) {
        try {
            new sqlite.DatabaseSync("file:probe?mode=memory", { readOnly: true }).close();
            urisAreTaken = true;
        } catch {
            urisAreTaken = false;
        }
    }
    return urisAreTaken;
}

/** A connection in autocommit, so that a transaction is where we say. Whole numbers come as BigInt. */
class Connection {
    #database;
    #statements = new Map();

    constructor(name, options) {
        this.#database = new sqlite.DatabaseSync(name, options);
        try {
            this.#database.exec(`PRAGMA cache_size = -${CACHE_KIB}`);
            this.#database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
            // Against a file that was made to harm: no functions in its schema, no cells beyond their page.
            this.#database.exec("PRAGMA trusted_schema = OFF");
            this.#database.exec("PRAGMA cell_size_check = ON");
        } catch (error) {
            this.close();
            throw error;
        }
    }

    close() {
        this.#statements.clear();
        this.#database.close();
    }

    /** What `work` gets out of one state. */
    inTransaction(work) {
        this.#database.exec("BEGIN");
        try {
            return work(this);
        } finally {
            try {
                this.#database.exec("ROLLBACK");
            } catch {
                // SQLite has rolled back by itself.
            }
        }
    }

    all(query, bound = {}) {
        return this.#prepared(query).all(bound);
    }

    get(query, bound = {}) {
        return this.#prepared(query).get(bound) ?? null;
    }

    iterate(query, bound = {}) {
        return this.#prepared(query).iterate(bound);
    }

    #prepared(query) {
        let statement = this.#statements.get(query);
        if (statement === undefined) {
            statement = this.#database.prepare(query);
            statement.setReadBigInts(true);
            this.#statements.set(query, statement);
        }
        return statement;
    }
}

/** The database at a path, read in short transactions; opened when it is first read, and again after `close`. */
export class Database {
    #path;
    #connection = null;
    #look = null;
    #lookedAt = 0;
    #wayIn = "alone";

    constructor(path) {
        // SQLite follows links too, and has its -wal beside what they lead to.
        try {
            this.#path = asBytes(fs.realpathSync(asPath(path), "buffer"));
        } catch {
            this.#path = path;
        }
    }

    get isThere() {
        return isThere(this.#path);
    }

    /** What `work` gets out of one state of the database; it may be called again. */
    read(work) {
        const giveUpAt = Date.now() + MAX_BUSY_MS;
        for (;;) {
            out.tick();
            try {
                return this.#readOnce(work);
            } catch (error) {
                this.#passOver(error);
            }
            if (Date.now() >= giveUpAt) {
                throw unreadable("the database is busy: it changes, or is locked, all the time; try again");
            }
            sleep(BUSY_RETRY_MS);
        }
    }

    close() {
        this.#connection?.close();
        this.#connection = null;
    }

    /** Returns if it may be tried again. */
    #passOver(error) {
        if (error instanceof Unsettled) {
            this.close();
        } else if (error.code === "ERR_SQLITE_ERROR") {
            if (this.#hasMoved()) {
                this.close();
            } else if (!PASSING.has(error.errcode & 0xff)) {
                throw described(error);
            }
        } else if (error instanceof Trouble && this.#hasMoved()) {
            // What it complains of may be half of one state and half of another.
            this.close();
        } else {
            throw error;
        }
    }

    #readOnce(work) {
        this.#connection ??= this.#open();
        const result = this.#connection.inTransaction(work);
        if (this.#wayIn === "alone" && !this.#wasAlone()) {
            throw new Unsettled();
        }
        return result;
    }

    #open() {
        this.#look = null;
        if (sqlite === undefined) {
            throw unreadable(NO_SQLITE);
        }
        out.flush(); // this may take long
        const look = lookAt(this.#path);
        this.#look = look;
        this.#lookedAt = Date.now();
        if (look.database === null) {
            throw new SystemError("ENOENT", this.#path);
        }
        if (look.database.sizeBytes === 0 && !holds(look.wal)) {
            throw broken("the database is an empty file");
        }
        this.#wayIn = !takesUris() || isOnSharedFileSystem(this.#path) ? "copy" : wayIn(look);
        if (this.#wayIn === "shared") {
            return new Connection(uriOf(this.#path, "mode=ro&readonly_shm=1"), { readOnly: true });
        }
        if (!isSettled(look)) {
            throw new Unsettled();
        }
        return this.#wayIn === "alone"
            ? new Connection(uriOf(this.#path, "mode=ro&immutable=1"), { readOnly: true })
            : this.#openCopy(look);
    }

    /** A connection to a private copy, which is recovered there as the original would be here. */
    #openCopy(look) {
        privateFolder.make();
        try {
            const copy = `${privateFolder.path}/copy.sqlite`;
            if (!copyDatabase(this.#path, look, copy)) {
                throw new Unsettled();
            }
            // Read-only, so that closing it doesn't write the WAL into it; only a journal has to be rolled back.
            const connection = new Connection(copy, { readOnly: !holds(look.journal) });
            try {
                connection.get("SELECT count(*) FROM sqlite_schema");
            } catch (error) {
                connection.close();
                throw error;
            }
            return connection;
        } finally {
            // It holds secrets: once its files are open, not even a process that is killed leaves it behind.
            privateFolder.remove();
        }
    }

    /** Whether what was read may be no state of the database, since it isn't as it was when it was opened. */
    #hasMoved() {
        if (this.#look === null || this.#wayIn === "copy") {
            return false;
        }
        const look = lookAt(this.#path);
        this.#lookedAt = Date.now();
        return this.#wayIn === "alone" ? !isSameLook(look, this.#look) : wayIn(look) !== "shared";
    }

    /**
     * Whether nobody has written to the file since it was opened: without locks, what was read may be torn then.
     *
     * Who opens it to write makes a WAL or a journal long before; to look for those now and then is enough.
     */
    #wasAlone() {
        if (Date.now() - this.#lookedAt > LOOK_AGAIN_MS) {
            return !this.#hasMoved();
        }
        return isSame(stampOf(this.#path), this.#look.database);
    }
}

function described(error) {
    const code = error.errcode & 0xff;
    const message = encoded(error.message);
    if (code === NO_DATABASE) {
        return broken("the file is not an SQLite database, or is encrypted");
    }
    if (code === CORRUPT) {
        return broken(`the database is damaged: ${message}`);
    }
    if (UNREADABLE.has(code)) {
        return unreadable(`the database can't be read: ${message}`);
    }
    return broken(`SQLite ${process.versions.sqlite} can't read the database: ${message}`);
}
