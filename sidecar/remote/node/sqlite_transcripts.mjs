// Any transcript of a database, wherever it lies: the twin of sidecar/stores/sqlite_transcripts.py.

import fs from "node:fs";

import { broken, cutOff, Rewritten, rewrittenMeanwhile, unreadable, Vanished } from "./errors.mjs";
import { BoundedReader, openRegular } from "./files.mjs";
import { MAX_BOUND_IDS, MAX_REREADS, MAX_SOUGHT_IDS } from "./limits.mjs";
import { BufferReader, sendCold, sendText } from "./sqlite_archives.mjs";
import { LiveReader, THIS, timeMs, undecodable } from "./sqlite_rows.mjs";
import { ARCHIVES, COLD, EVENTS, IDENTITIES } from "./sqlite_tables.mjs";
import { asBytes, asPath, encoded, joined, mended } from "./text.mjs";
import { decompressed, decompressedRow, forwardCompressed, sendCompressed, zstdHeader } from "./zstd.mjs";

const COLD_NAME = /^[0-9a-f]{64}\.jsonl\.zst$/;

/** Any transcript of a database by its session's id or its archive's name, wherever it lies: rows, cold, archived. */
export class Transcripts {
    #database;
    #live;
    #coldFolder;

    constructor(database, tables, sessionsFolder) {
        this.#database = database;
        this.tables = tables;
        this.#live = new LiveReader(database, tables);
        this.#coldFolder = joined(sessionsFolder, "cold");
    }

    /** Hand a session's transcript to `sink`; how it stands. `Vanished`, `Rewritten` or what tells of a failure. */
    readSession(sessionId, sink) {
        if (this.tables.has(EVENTS)) {
            try {
                return { modifiedAtMs: this.#live.read(sessionId, sink), archivedAs: null };
            } catch (error) {
                unlessVanished(error);
            }
        }
        return { modifiedAtMs: this.#readCold(sessionId, sink), archivedAs: null };
    }

    /** The same of an archive. */
    readArchive(name, sink) {
        const { reason, encoding, blob, created_at: createdAt } = this.#archive(name, "archive_blob AS blob");
        if (encoding === "identity") {
            sendText(Buffer.from(blob), sink);
        } else {
            sendCompressed("piece", new BufferReader(Buffer.from(blob)), sink);
        }
        return { modifiedAtMs: timeMs(createdAt), archivedAs: ["reset", "deleted"].includes(reason) ? reason : null };
    }

    /** The size of a transcript as JSONL. */
    sessionSizeBytes(sessionId) {
        if (this.tables.has(EVENTS)) {
            try {
                return this.#live.sizeBytes(sessionId);
            } catch (error) {
                unlessVanished(error);
            }
        }
        const { raw_bytes: rawBytes } = this.#coldRow(sessionId);
        if (typeof rawBytes !== "bigint") {
            throw broken("the session is in cold storage, and its size is not known");
        }
        return Number(rawBytes) + 1; // OpenClaw counts no line feed after the last row.
    }

    /** The same of an archive; null if `sink` was given the zstd that would tell. */
    archiveSizeBytes(name, sink) {
        const columns = "octet_length(archive_blob) AS size, substr(archive_blob, 1, 18) AS start";
        const { encoding, size, start } = this.#archive(name, columns);
        if (encoding === "identity") {
            return Number(size);
        }
        if (size === 0n || size === 0) {
            throw cutOff(); // Node gives null for a part of what has no byte.
        }
        const contentBytes = zstdHeader(Buffer.from(start), 0)?.contentBytes ?? null;
        if (contentBytes !== null) {
            return contentBytes;
        }
        const { blob } = this.#archive(name, "archive_blob AS blob");
        const content = decompressed(Buffer.from(blob));
        if (content === null) {
            forwardCompressed("piece", [Buffer.from(blob)], sink);
        }
        return content?.length ?? null;
    }

    hasSession(sessionId) {
        return this.#has(EVENTS, "session_id", sessionId) || this.#has(COLD, "session_id", sessionId);
    }

    hasArchive(name) {
        return this.#has(ARCHIVES, "archive_name", name);
    }

    /** Whether the session is there and each of `ids` is the id of an entry of it. */
    hasEntries(sessionId, ids) {
        if (!this.hasSession(sessionId)) {
            return false;
        }
        for (let sought = nextOf(ids, MAX_SOUGHT_IDS); sought.size > 0; sought = nextOf(ids, MAX_SOUGHT_IDS)) {
            if (this.tables.has(IDENTITIES)) {
                this.#identified(sessionId, sought).forEach((id) => sought.delete(id));
            }
            // Cold storage takes the identities with it.
            if (sought.size > 0 && (!this.tables.has(IDENTITIES) || this.#has(COLD, "session_id", sessionId))) {
                this.readSession(sessionId, new Striker(sought));
            }
            if (sought.size > 0) {
                return false;
            }
        }
        return true;
    }

    #identified(sessionId, sought) {
        const ids = [...sought];
        const known = [];
        for (let start = 0; start < ids.length; start += MAX_BOUND_IDS) {
            const some = ids.slice(start, start + MAX_BOUND_IDS).map((id, place) => [`id${place}`, Buffer.from(id)]);
            const marks = some.map(([name]) => `CAST(:${name} AS TEXT)`).join(", ");
            const query = `SELECT CAST(event_id AS BLOB) AS id FROM ${IDENTITIES} ${THIS} AND event_id IN (${marks})`;
            const bound = { id: asPath(sessionId), ...Object.fromEntries(some) };
            const rows = this.#database.read((connection) => connection.all(query, bound));
            known.push(...rows.map(({ id }) => Buffer.from(id).toString()));
        }
        return known;
    }

    #has(table, column, key) {
        const query = `SELECT 1 FROM ${table} WHERE ${column} = CAST(:key AS TEXT) LIMIT 1`;
        const bound = { key: asPath(key) };
        const find = (connection) => connection.get(query, bound);
        return this.tables.has(table, column) && this.#database.read(find) !== null;
    }

    #readCold(sessionId, sink) {
        if (!this.tables.has(COLD)) {
            throw new Vanished();
        }
        const row = this.#coldRow(sessionId);
        const name = asBytes(row.name ?? Buffer.alloc(0));
        if (!COLD_NAME.test(name)) {
            throw broken(`the session is in cold storage, under a name that OpenClaw doesn't give: ${name}`);
        }
        const archivedAtMs = timeMs(row.archived_at);
        if (row.storage === "sqlite") {
            const { blob } = this.#coldRow(sessionId, "archive_blob AS blob");
            return sendCold(new BufferReader(Buffer.from(blob ?? [])), sink) ?? archivedAtMs;
        }
        const file = this.#openCold(sessionId, name);
        try {
            return sendCold(new BoundedReader(file.fd, file.sizeBytes), sink) ?? archivedAtMs;
        } finally {
            fs.closeSync(file.fd);
        }
    }

    #openCold(sessionId, name) {
        try {
            return openRegular(joined(this.#coldFolder, name));
        } catch (error) {
            // OpenClaw removes the file when it has put the rows back; while the database names it, it is lost.
            if (error.code === "ENOENT" && asBytes(this.#coldRow(sessionId).name) !== name) {
                throw new Rewritten();
            }
            throw error;
        }
    }

    #coldRow(sessionId, more = "raw_bytes") {
        const columns = `CAST(archive_name AS BLOB) AS name, storage, archived_at, ${more}`;
        return this.#row(`SELECT ${columns} FROM ${COLD} WHERE session_id`, sessionId);
    }

    #archive(name, columns) {
        const all = `reason, created_at, encoding, ${columns}`;
        const row = this.#row(`SELECT ${all} FROM ${ARCHIVES} WHERE archive_name`, name);
        if (row.encoding !== "identity" && row.encoding !== "zstd") {
            throw broken(`the archive is of an encoding that is not known: ${encoded(row.encoding)}`);
        }
        return row;
    }

    #row(query, key) {
        const bound = { key: asPath(key) };
        const row = this.#database.read((connection) => connection.get(`${query} = CAST(:key AS TEXT)`, bound));
        if (row === null) {
            throw new Vanished();
        }
        return row;
    }
}

function unlessVanished(error) {
    if (!(error instanceof Vanished)) {
        throw error;
    }
}

function nextOf(ids, count) {
    const some = new Set();
    while (some.size < count) {
        const { value, done } = ids.next();
        if (done) {
            break;
        }
        some.add(value);
    }
    return some;
}

/** Strikes the ids of the entries that come to it off a set. */
class Striker {
    wantsCompressed = false;
    #sought;

    constructor(sought) {
        this.#sought = sought;
    }

    row(line) {
        try {
            const { id } = JSON.parse(line.toString());
            this.#sought.delete(typeof id === "string" ? mended(id) : null);
        } catch {
            // No entry, so none that is sought.
        }
    }

    frame(seq, frame) {
        const line = decompressedRow(frame);
        if (line === null) {
            throw undecodable(seq, "its zstd can't be opened here");
        }
        this.row(line);
    }

    forward() {
        throw unreadable("what is compressed can't be opened here");
    }

    measure() {}

    skip() {}
}

/** What `read` gives; it is called again when the session turned out to be rewritten, or moved, meanwhile. */
export function inOneState(read) {
    for (let attempt = 1; attempt <= MAX_REREADS; attempt++) {
        try {
            return read();
        } catch (error) {
            const isPassing = error instanceof Rewritten || (error instanceof Vanished && attempt < MAX_REREADS);
            if (!isPassing) {
                throw error;
            }
        }
    }
    throw rewrittenMeanwhile();
}
