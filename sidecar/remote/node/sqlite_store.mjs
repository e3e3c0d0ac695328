// The sessions in an agent's database: the twin of sidecar/stores/sqlite.py.

import fs from "node:fs";

import { isTold, Rewritten, unlessTold, Vanished } from "./errors.mjs";
import { out } from "./output.mjs";
import { brokenIndex, decodeMembers, SessionIndex } from "./session_index.mjs";
import { indexedId, SESSIONS } from "./session_names.mjs";
import { Counter, tellSession } from "./session_record.mjs";
import { Database } from "./sqlite_open.mjs";
import { archiveRows, merged, readEntries, sessionIds, Tables } from "./sqlite_tables.mjs";
import { inOneState, Transcripts } from "./sqlite_transcripts.mjs";
import { asPath, fileName, joined, sortKey, wireName } from "./text.mjs";

export const DATABASE = "agent/openclaw-agent.sqlite";

/** The sessions in one agent's database: by id, live or in cold storage, then archives by name. */
export class SqliteStore {
    #shownPath;
    #sessionsFolder;
    #agentName;
    #database;
    #failed;
    #transcripts = null;
    #ids = [];
    #known = new Set();
    #archives = [];
    #beside = [];
    #isListed = false;
    #vanished = 0;

    constructor(agent, failed) {
        const path = joined(agent.path, DATABASE);
        this.#shownPath = wireName(path);
        this.#sessionsFolder = joined(agent.path, SESSIONS);
        this.#agentName = wireName(agent.name);
        this.#database = new Database(path);
        this.#failed = failed;
    }

    get total() {
        this.#list();
        return this.#ids.length + this.#archives.length - this.#vanished;
    }

    /** Whether the session of this id is in the database; being archived there doesn't count. */
    has(sessionId) {
        this.#list();
        return this.#known.has(sessionId);
    }

    /** Whether the session is in the database with all entries of these ids; false if that can't be read. */
    holdsEntries(sessionId, ids) {
        try {
            return this.#open()?.hasEntries(sessionId, ids) ?? false;
        } catch (error) {
            if (isTold(error) || error instanceof Rewritten || error instanceof Vanished) {
                return false; // Not proved; and why it can't be read, its analysis tells.
            }
            throw error;
        }
    }

    close() {
        this.#database.close();
    }

    analyse(onTotal) {
        try {
            this.#list();
            const index = this.#readIndex();
            [...this.#places()].forEach((place) => this.#analysePlace(place, index, onTotal));
        } finally {
            this.close();
        }
    }

    /** How to send a transcript, given its wire name: a function of a `Sender`; null if it isn't here. */
    find(id) {
        const name = fileName(id);
        const transcripts = this.#open();
        if (transcripts?.hasSession(name)) {
            return (sender) => transcripts.readSession(name, sender);
        }
        if (transcripts?.hasArchive(name) && !this.#liesBeside(name)) {
            return (sender) => transcripts.readArchive(name, sender);
        }
        return null;
    }

    /** A record for each session and archive, by name, its size that of the transcript. */
    tellFiles() {
        const beforeId = `agents/${this.#agentName}/${DATABASE}#`;
        const lists = [this.#livePlaces(), this.#archivePlaces()];
        try {
            this.#list();
            for (const place of merged(...lists, ({ name }) => sortKey(name))) {
                try {
                    const sizeBytes = inOneState(() => this.#sizeBytes(place));
                    const relativePath = beforeId + wireName(place.name);
                    out.record("file", this.#shownPath, relativePath, this.#agentName, place.kind, sizeBytes);
                } catch (error) {
                    this.#noteFailure(place, error);
                }
            }
        } finally {
            this.close();
        }
    }

    /** The ids of all sessions and archives here, also of archives that are files as well. */
    ids() {
        try {
            this.#list();
            return [...this.#ids, ...[...this.#archives, ...this.#beside].map(({ id }) => id)];
        } finally {
            this.close();
        }
    }

    #open() {
        if (this.#transcripts === null && this.#database.isThere) {
            this.#transcripts = new Transcripts(this.#database, new Tables(this.#database), this.#sessionsFolder);
        }
        return this.#transcripts;
    }

    /** Find out, once, which sessions and archives there are; those that were found before a failure stay. */
    #list() {
        if (this.#isListed) {
            return;
        }
        this.#isListed = true;
        try {
            const tables = this.#open()?.tables;
            if (tables !== undefined) {
                for (const id of sessionIds(this.#database, tables)) {
                    this.#ids.push(id);
                    this.#known.add(id);
                }
                for (const row of archiveRows(this.#database, tables)) {
                    (this.#liesBeside(row.id) ? this.#beside : this.#archives).push(row);
                }
            }
        } catch (error) {
            unlessTold(error);
            this.#failed(this.#shownPath, error);
        }
    }

    /** Whether an archive is also a file, which is listed where files are. */
    #liesBeside(name) {
        if (name === "" || name.includes("/") || name.includes("\0")) {
            return false;
        }
        try {
            return fs.statSync(asPath(joined(this.#sessionsFolder, name))).isFile();
        } catch {
            return false;
        }
    }

    *#livePlaces() {
        for (const id of this.#ids) {
            yield { name: id, kind: "sessions", indexedId: indexedId(id) };
        }
    }

    *#archivePlaces() {
        for (const { id, session } of this.#archives) {
            yield { name: id, kind: "archive", indexedId: indexedId(session) };
        }
    }

    *#places() {
        yield* this.#livePlaces();
        yield* this.#archivePlaces();
    }

    #readIndex() {
        const index = new SessionIndex(Array.from(this.#places(), (place) => place.indexedId));
        const table = this.#transcripts?.tables.index;
        if (table === undefined || this.#ids.length + this.#archives.length === 0) {
            return index;
        }
        try {
            let isUnreadable = false;
            readEntries(this.#database, table, (entry) => {
                const members = entry === null ? null : decodeMembers(`{"":${entry}}`);
                isUnreadable ||= members === null;
                index.remember(members ?? []);
            });
            if (isUnreadable) {
                throw brokenIndex(`an entry of the session index, table ${table}, can't be read`);
            }
        } catch (error) {
            unlessTold(error);
            this.#failed(this.#shownPath, error);
        }
        return index;
    }

    #analysePlace(place, index, onTotal) {
        const counter = new Counter();
        let standing;
        try {
            standing = inOneState(() => {
                counter.again();
                return this.#read(place, counter);
            });
        } catch (error) {
            if (error instanceof Vanished) {
                counter.again();
                this.#vanished += 1;
                onTotal();
            } else {
                this.#noteFailure(place, error);
            }
            return;
        }
        const where = { id: place.name, filePath: this.#shownPath, kind: place.kind, store: "sqlite", ...standing };
        tellSession(where, counter, index.get(place.indexedId));
    }

    #noteFailure(place, error) {
        if (error instanceof Vanished) {
            return;
        }
        unlessTold(error);
        this.#failed(`${this.#shownPath}#${wireName(place.name)}`, error);
    }

    #read({ name, kind }, sink) {
        const transcripts = this.#opened();
        return kind === "sessions" ? transcripts.readSession(name, sink) : transcripts.readArchive(name, sink);
    }

    #sizeBytes({ name, kind }) {
        const transcripts = this.#opened();
        return kind === "sessions" ? transcripts.sessionSizeBytes(name) : transcripts.archiveSizeBytes(name, FORWARDER);
    }

    #opened() {
        const transcripts = this.#open();
        if (transcripts === null) {
            throw new Vanished();
        }
        return transcripts;
    }
}

/** A `Sender` of what is compressed alone. */
const FORWARDER = { forward: (name, data) => out.bytes(name, data) };
