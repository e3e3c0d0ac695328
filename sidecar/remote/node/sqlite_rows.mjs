// Transcripts that are rows: the twin of sidecar/stores/sqlite_rows.py.

import { broken, Rewritten, Vanished } from "./errors.mjs";
import { BLOCK_BYTES, MAX_ENTRY_BYTES, MAX_MARK_BYTES, MAX_PAGE_ROWS, MAX_PAGE_SIZES } from "./limits.mjs";
import { EVENTS, GENERATIONS, isBytes } from "./sqlite_tables.mjs";
import { asPath } from "./text.mjs";
import { zstdHeader } from "./zstd.mjs";

const BEFORE_ALL = -(2n ** 63n);
const AFTER_ALL = 2n ** 63n - 1n;
const NEITHER = "it is neither text nor zstd";
export const THIS = "WHERE session_id = CAST(:id AS TEXT)";

export const undecodable = (seq, why) => broken(`row ${seq} of the session can't be decoded: ${why}`);
const noNumber = () => broken("the database is damaged: a row has no number");

/** A time of a column, which only a strict table can't hold something else in. */
export function timeMs(value) {
    return typeof value === "bigint" || typeof value === "number" ? Number(value) : 0;
}

/**
 * Reads the rows of one session after another as they stood when its reading began: later ones are a later state.
 *
 * That they are of one state is seen by the generation that OpenClaw gives them anew when it rewrites them, and where
 * there is none (schema 8) by their count, the numbers that SQLite gave them, and the text of one.
 */
export class LiveReader {
    #database;
    #queries;

    constructor(database, tables) {
        const frame = tables.has(EVENTS, "event_zstd") ? "event_zstd" : "NULL";
        const size = tables.has(EVENTS, "event_utf8_bytes") ? "event_utf8_bytes" : "NULL";
        const generation = tables.has(GENERATIONS, "generation")
            ? `(SELECT generation FROM ${GENERATIONS} ${THIS})`
            : "NULL";
        const unread = `FROM ${EVENTS} ${THIS} AND seq > :after AND seq <= :last ORDER BY seq`;
        const small = (column, most) => `CASE WHEN octet_length(${column}) <= ${most} THEN CAST(${column} AS BLOB) END`;
        this.#database = database;
        this.#queries = {
            state: `SELECT max(seq) AS last, ${generation} AS generation FROM ${EVENTS} ${THIS}`,
            numbers: `SELECT count(*) AS rows, sum(rowid) AS numbers FROM ${EVENTS} ${THIS} AND seq <= :after`,
            marked: `SELECT ${small("event_json", MAX_MARK_BYTES)} AS text FROM ${EVENTS} ${THIS} AND seq = :seq`,
            rows: `
SELECT seq, created_at, rowid AS number, typeof(event_json) AS text_type, typeof(${frame}) AS frame_type,
  octet_length(event_json) AS text_bytes, ${small("event_json", MAX_ENTRY_BYTES)} AS text,
  CAST(${frame} AS BLOB) AS frame
${unread} LIMIT ${MAX_PAGE_ROWS}`,
            sizes: `
SELECT seq, created_at, rowid AS number, coalesce(${size}, octet_length(event_json)) AS size
${unread} LIMIT ${MAX_PAGE_SIZES}`,
        };
    }

    /** Hand the rows to `sink`; when the last was written. `Vanished` if there are none. */
    read(sessionId, sink) {
        const take = (connection, page) => this.#takeRows(connection, page);
        const progress = this.#pages(sessionId, take, (row) => {
            if (row.text !== null) {
                sink.row(row.text);
                sink.measure(row.text.length + 1);
            } else if (row.frame !== null) {
                sink.frame(row.seq, row.frame);
            } else {
                sink.skip(1);
                sink.measure(row.sizeBytes + 1);
            }
        });
        return progress.writtenAtMs;
    }

    /** What the lines would measure, without reading more of them than must be. */
    sizeBytes(sessionId) {
        let sizeBytes = 0;
        const take = (connection, page) => this.#takeSizes(connection, page);
        this.#pages(sessionId, take, (row) => {
            sizeBytes += row.sizeBytes + 1;
        });
        return sizeBytes;
    }

    /** Read page after page with `take`, and call `use` with each row once its transaction is over. */
    #pages(sessionId, take, use) {
        const bound = { id: asPath(sessionId) };
        const place = { after: BEFORE_ALL, last: AFTER_ALL, rows: 0, numbers: 0n };
        let progress = { bound, ...place, generation: null, mark: null, writtenAtMs: 0 };
        while (progress.after !== progress.last) {
            const before = progress;
            const { page, taken } = this.#database.read((connection) => {
                // What was known before stays as it was, for this may be asked again.
                const page = { ...before };
                if (page.rows > 0) {
                    this.#check(connection, page);
                }
                const taken = take(connection, page);
                if (page.rows === 0) {
                    throw new Vanished();
                }
                if (page.after !== page.last && page.last === AFTER_ALL) {
                    Object.assign(page, connection.get(this.#queries.state, bound));
                }
                return { page, taken };
            });
            taken.forEach(use);
            progress = page;
        }
        return progress;
    }

    /** See that the rows which were read are still those that there are. */
    #check(connection, page) {
        const { last, generation } = connection.get(this.#queries.state, page.bound);
        if (last === null || last < page.last || generation !== page.generation) {
            throw new Rewritten();
        }
        if (generation === null) {
            const found = connection.get(this.#queries.numbers, { ...page.bound, after: page.after });
            const isSameCount = Number(found.rows) === page.rows && found.numbers === page.numbers;
            if (!isSameCount || !this.#isAsMarked(connection, page)) {
                throw new Rewritten();
            }
        }
    }

    #isAsMarked(connection, { bound, mark }) {
        if (mark === null) {
            return true;
        }
        const found = connection.get(this.#queries.marked, { ...bound, seq: mark.seq });
        return found !== null && found.text !== null && mark.text.equals(found.text);
    }

    /** Rows until the page is full; one that is longer has a page of its own. */
    #takeRows(connection, page) {
        const taken = [];
        let takenBytes = 0;
        for (const found of connection.iterate(this.#queries.rows, unread(page))) {
            const row = decodableRow(found);
            if (taken.length > 0 && takenBytes + row.sizeBytes + 1 > BLOCK_BYTES) {
                return taken;
            }
            step(page, found);
            taken.push(row);
            takenBytes += row.sizeBytes + 1;
            if (row.text !== null && row.text.length <= MAX_MARK_BYTES) {
                page.mark = { seq: found.seq, text: row.text };
            }
        }
        settleEnd(page, taken.length, MAX_PAGE_ROWS);
        return taken;
    }

    #takeSizes(connection, page) {
        const taken = [];
        for (const row of connection.all(this.#queries.sizes, unread(page))) {
            if (typeof row.size !== "bigint") {
                throw undecodable(row.seq, NEITHER);
            }
            step(page, row);
            taken.push({ sizeBytes: Number(row.size) });
        }
        settleEnd(page, taken.length, MAX_PAGE_SIZES);
        return taken;
    }
}

/** A row with its text or its frame; with neither if its text is longer than a line may be. */
function decodableRow(row) {
    const isText = row.text_type !== "null";
    if (!isBytes(isText ? row.text_type : row.frame_type)) {
        throw undecodable(row.seq, NEITHER);
    }
    const text = row.text === null ? null : Buffer.from(row.text);
    const frame = isText ? null : Buffer.from(row.frame);
    const toldBytes = isText ? Number(row.text_bytes) : zstdHeader(frame, 0)?.contentBytes;
    return { seq: Number(row.seq), text, frame, sizeBytes: toldBytes ?? frame.length };
}

function unread({ bound, after, last }) {
    return { ...bound, after, last };
}

/** A page has got one row further. */
function step(page, row) {
    if (typeof row.seq !== "bigint") {
        throw noNumber(); // though the table is strict: its pages may be damaged
    }
    page.after = row.seq;
    page.rows += 1;
    page.numbers += row.number;
    page.writtenAtMs = timeMs(row.created_at);
}

/** A page that got all there is knows the last row. */
function settleEnd(page, count, limit) {
    if (count === limit && page.after !== page.last) {
        return;
    }
    if (page.last === AFTER_ALL) {
        page.last = page.after;
    } else if (page.after !== page.last) {
        throw new Rewritten(); // The last row has gone, and others have come after it.
    }
}
