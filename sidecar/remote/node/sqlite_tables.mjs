// What a database holds, its tables, ids and index: the twin of sidecar/stores/sqlite_tables.py.

import { broken } from "./errors.mjs";
import { BLOCK_BYTES, MAX_INDEX_ENTRY_BYTES, MAX_PAGE_IDS } from "./limits.mjs";
import { asBytes } from "./text.mjs";

export const EVENTS = "transcript_events";
export const IDENTITIES = "transcript_event_identities";
export const GENERATIONS = "transcript_rewrite_watermarks";
export const ARCHIVES = "session_transcript_archives";
export const COLD = "session_transcript_cold_archives";
const INDEXES = ["session_nodes", "session_entries"];
const NEEDED = {
    [EVENTS]: ["created_at", "event_json", "seq", "session_id"],
    [ARCHIVES]: ["archive_blob", "archive_name", "created_at", "encoding", "reason", "session_id"],
    [COLD]: ["archive_blob", "archive_name", "archived_at", "raw_bytes", "session_id", "storage"],
};

// Ids are bound and taken as bytes, for they may be no UTF-8. This hops from one to the next over the primary key, in
// which each is repeated for all its rows.
const NEXT_LIVE = `
WITH RECURSIVE ids(id) AS (
  SELECT min(session_id) FROM ${EVENTS} WHERE session_id > CAST(:after AS TEXT)
  UNION ALL
  SELECT (SELECT min(session_id) FROM ${EVENTS} WHERE session_id > ids.id) FROM ids WHERE ids.id IS NOT NULL
)
SELECT CAST(id AS BLOB) AS id, typeof(id) AS type, x'' AS session, 'text' AS session_type
FROM ids WHERE id IS NOT NULL LIMIT ${MAX_PAGE_IDS}`;
const NEXT_COLD = `
SELECT CAST(session_id AS BLOB) AS id, typeof(session_id) AS type, x'' AS session, 'text' AS session_type
FROM ${COLD} WHERE session_id > CAST(:after AS TEXT) ORDER BY session_id LIMIT ${MAX_PAGE_IDS}`;
const NEXT_ARCHIVED = `
SELECT CAST(archive_name AS BLOB) AS id, typeof(archive_name) AS type,
  CAST(session_id AS BLOB) AS session, typeof(session_id) AS session_type
FROM ${ARCHIVES} WHERE archive_name > CAST(:after AS TEXT) ORDER BY archive_name LIMIT ${MAX_PAGE_IDS}`;

export const isBytes = (type) => type === "text" || type === "blob";

/** Which columns the tables have that matter: tables and columns are looked up, never inferred from a number. */
export class Tables {
    #columns;

    constructor(database) {
        this.#columns = database.read((connection) => {
            if (connection.get("PRAGMA encoding").encoding !== "UTF-8") {
                throw broken("the database is in UTF-16, which OpenClaw doesn't write");
            }
            const names = [...Object.keys(NEEDED), ...INDEXES, IDENTITIES, GENERATIONS];
            const columnsOf = (table) => connection.all(`PRAGMA table_info(${table})`).map(({ name }) => name);
            return new Map(names.map((table) => [table, new Set(columnsOf(table))]));
        });
        for (const [table, needed] of Object.entries(NEEDED)) {
            const missing = needed.filter((column) => !this.has(table, column));
            if (this.#columns.get(table).size > 0 && missing.length > 0) {
                const what = `its table ${table} has no ${missing.join(", ")}`;
                throw broken(`the database is of a form that is not known: ${what}`);
            }
        }
    }

    has(table, column = "session_id") {
        return this.#columns.get(table).has(column);
    }

    /** The table that took the place of `sessions.json`. */
    get index() {
        return INDEXES.find((table) => this.has(table, "session_key") && this.has(table, "entry_json"));
    }
}

/** The ids of the sessions that have rows, or had before they were put into cold storage, in order. */
export function* sessionIds(database, tables) {
    const live = idsIn(database, tables, EVENTS, NEXT_LIVE);
    const cold = idsIn(database, tables, COLD, NEXT_COLD);
    let before = null;
    for (const { id } of merged(live, cold, ({ id }) => id)) {
        if (id !== before) {
            yield id;
        }
        before = id;
    }
}

/** The archives, each `{ id, session }`: by name, with the session that it is of. */
export function archiveRows(database, tables) {
    return idsIn(database, tables, ARCHIVES, NEXT_ARCHIVED);
}

function idsIn(database, tables, table, query) {
    return tables.has(table) ? idsOf(database, query) : [].values();
}

/** The rows that a query for ids gives, page by page, each `{ id, session }`. */
function* idsOf(database, query) {
    let after = Buffer.alloc(0);
    for (;;) {
        const bound = { after };
        const page = database.read((connection) => connection.all(query, bound));
        if (page.length === 0) {
            return;
        }
        if (!page.every(({ type, session_type: sessionType }) => isBytes(type) && isBytes(sessionType))) {
            throw broken("the database is of a form that is not known: a session's id is not text");
        }
        for (const { id, session } of page) {
            yield { id: asBytes(id), session: asBytes(session) };
        }
        after = page[page.length - 1].id;
    }
}

/** What two sorted sequences give, as one. */
export function* merged(one, other, key) {
    let [left, right] = [one.next(), other.next()];
    while (!left.done || !right.done) {
        if (right.done || (!left.done && key(left.value) <= key(right.value))) {
            yield left.value;
            left = one.next();
        } else {
            yield right.value;
            right = other.next();
        }
    }
}

/** Call `remember` with the text of every entry of the index; with null for one that is none, or too large. */
export function readEntries(database, table, remember) {
    const query = `
SELECT CAST(session_key AS BLOB) AS key,
  CASE WHEN typeof(entry_json) IN ('text', 'blob') AND octet_length(entry_json) <= ${MAX_INDEX_ENTRY_BYTES}
    THEN CAST(entry_json AS BLOB) END AS entry
FROM ${table} WHERE session_key > CAST(:after AS TEXT) ORDER BY session_key LIMIT ${MAX_PAGE_IDS}`;
    for (let after = Buffer.alloc(0), page = null; page === null || page.length > 0;) {
        const bound = { after };
        page = database.read((connection) => someOf(connection.iterate(query, bound)));
        for (const { key, entry } of page) {
            remember(entry === null ? null : Buffer.from(entry).toString());
            after = key;
        }
    }
}

/** As many entries as should be held at once; one at least. */
function someOf(rows) {
    const page = [];
    let sizeBytes = 0;
    for (const row of rows) {
        page.push(row);
        sizeBytes += row.entry?.length ?? 0;
        if (sizeBytes >= BLOCK_BYTES) {
            break;
        }
    }
    return page;
}
