// Transcripts in one piece, cold or archived: the twin of sidecar/stores/sqlite_archives.py.

import { eachLine } from "./blocks.mjs";
import { MAX_HELD_COMPRESSED_BYTES } from "./limits.mjs";
import { isObject, isUtf8 } from "./text.mjs";
import { chunksOf, decompressed, forwardCompressed, hasZstd } from "./zstd.mjs";

const SURROGATE_ESCAPE = /\\u[dD][89a-fA-F]/;

/** Reads what is in memory already. */
export class BufferReader {
    #data;

    constructor(data) {
        this.#data = data;
    }

    get left() {
        return this.#data.length;
    }

    read(buffer, start, end) {
        const count = this.#data.copy(buffer, start, 0, end - start);
        this.#data = this.#data.subarray(count);
        return count;
    }

    readAll() {
        return this.#data;
    }
}

export function sendText(text, sink) {
    sink.block(text, 0, text.length);
    sink.measure(text.length);
}

/** Hand on the rows in cold storage's records; when the last was written, or null if that isn't known here. */
export function sendCold(reader, sink) {
    const isHeld = !sink.wantsCompressed && hasZstd && reader.left <= MAX_HELD_COMPRESSED_BYTES;
    const data = isHeld ? reader.readAll() : null;
    const rows = isHeld ? coldRows(decompressed(data)) : null;
    if (rows === null) {
        forwardCompressed("cold", isHeld ? [data] : chunksOf(reader), sink);
        return null;
    }
    for (const { event_json: text } of rows) {
        const line = Buffer.from(text);
        sink.row(line);
        sink.measure(line.length + 1);
    }
    return rows.length === 0 ? null : (rows[rows.length - 1].created_at ?? 0);
}

/** The rows in cold storage's records; null if anything about them is odd, so that the other end can say what. */
function coldRows(content) {
    // Half a surrogate pair is refused there; whole ones are never written as escapes.
    if (content === null || !isUtf8(content) || SURROGATE_ESCAPE.test(content.toString("latin1"))) {
        return null;
    }
    const rows = [];
    let records = 0;
    let isOdd = false;
    eachLine(content, 0, content.length, (from, to) => {
        const record = isOdd ? null : coldRecord(content.toString("utf8", from, to));
        const isRow = record?.kind === "event" && typeof record.row?.event_json === "string";
        isOdd ||= record === null || (records === 0 && !isRow && record.kind !== "header");
        records += 1;
        if (isRow) {
            rows.push(record.row);
        }
    });
    return isOdd ? null : rows;
}

function coldRecord(line) {
    let record;
    try {
        record = JSON.parse(line);
    } catch {
        return null;
    }
    const row = record?.row ?? null;
    const isKnown = isObject(record) && typeof record.kind === "string" && (row === null || isColdRow(row));
    return isKnown ? record : null;
}

function isColdRow(row) {
    const { seq = 0, event_json: text = null, created_at: createdAt = 0 } = isObject(row) ? row : { seq: null };
    return Number.isInteger(seq) && (text === null || typeof text === "string") && typeof createdAt === "number";
}
