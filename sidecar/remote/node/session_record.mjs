// What is said of a session that was counted, of which sidecar/core/analysis.py makes a session at the other end.

import { eachLine } from "./blocks.mjs";
import { MAX_ENTRY_BYTES } from "./limits.mjs";
import { out } from "./output.mjs";
import { wireName } from "./text.mjs";
import { Tally } from "./transcript.mjs";
import { decompressedRow } from "./zstd.mjs";

/** Where a transcript goes to be counted. What can't be opened is sent, between parts that are counted. */
export class Counter {
    wantsCompressed = false;
    #hasSent = false;

    constructor() {
        this.#reset();
    }

    #reset() {
        this.tally = new Tally();
        this.sizeBytes = 0;
    }

    /** Forget all that came: the transcript comes anew. */
    again() {
        if (this.#hasSent) {
            out.record("again");
            this.#hasSent = false;
        }
        this.#reset();
    }

    /** Whole lines, of which only the last one may lack its LF. */
    block(buffer, start, end) {
        eachLine(buffer, start, end, (from, to) => {
            if (to - from > MAX_ENTRY_BYTES) {
                this.skip(1);
            } else if (from < to) {
                this.tally.add(buffer.toString("utf8", from, to));
            }
        });
    }

    /** How many bytes came; apart from `block`, for lines that are passed over count as well. */
    measure(sizeBytes) {
        this.sizeBytes += sizeBytes;
    }

    /** One line that may have line feeds in it. */
    row(line) {
        this.tally.add(line.toString());
    }

    skip(lines) {
        this.tally.skippedLines += lines;
    }

    frame(seq, frame) {
        const line = decompressedRow(frame);
        if (line === null) {
            this.forward("frame", frame, seq);
        } else {
            this.row(line);
            this.measure(line.length + 1);
        }
    }

    forward(name, data, ...more) {
        if (this.tally.begun || this.tally.skippedLines > 0 || this.sizeBytes > 0) {
            out.record("part", ...this.tally.items, this.sizeBytes);
            this.#reset();
        }
        out.bytes(name, data, ...more);
        this.#hasSent = true;
    }
}

/** The record of a session whose transcript was counted; `entry` is what the index says of it. */
export function tellSession({ id, filePath, kind, modifiedAtMs, store, archivedAs }, counter, entry) {
    const { sizeBytes, tally } = counter;
    const known = [asNumber(entry.updatedAt), asNumber(entry.totalTokens), entry.model];
    const place = [wireName(id), filePath, kind, sizeBytes, modifiedAtMs, store, archivedAs];
    out.record("session", ...place, ...tally.items, ...known);
}

/** What JSON takes: a BigInt only comes from where there is a `rawJSON`. */
function asNumber(value) {
    return typeof value === "bigint" ? JSON.rawJSON(String(value)) : value;
}
