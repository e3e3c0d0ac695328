// What is sent of a transcript that is shown, of which sidecar/core/preview.py makes pages at the other end.

import { eachLine } from "./blocks.mjs";
import { BLOCK_BYTES, TRIM_OVER_BYTES } from "./limits.mjs";
import { out } from "./output.mjs";
import { isObject, isUtf8, LF, parse } from "./text.mjs";
import { decompressedRow } from "./zstd.mjs";

const CR = 0x0d;

/** Where a transcript goes to be shown: to the other end, without what a preview doesn't show. */
export class Sender {
    wantsCompressed = true;
    #lines = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    #end = 0;

    again() {}

    measure() {}

    block(buffer, start, end) {
        let runStart = start;
        eachLine(buffer, start, end, (from, to) => {
            if (to - from <= TRIM_OVER_BYTES) {
                return;
            }
            const short = trimmed(buffer.subarray(from, to));
            if (short !== null) {
                this.#add(buffer.subarray(runStart, from));
                this.#addLine(short);
                runStart = Math.min(to + 1, end);
            }
        });
        this.#add(buffer.subarray(runStart, end));
    }

    row(line) {
        const short = line.length > TRIM_OVER_BYTES ? trimmed(line) : null;
        this.#addLine(short ?? asOneLine(line));
    }

    skip(lines) {
        this.flush();
        out.record("skipped", lines);
    }

    /** Compressed, most are shorter; not one with an image in it. */
    frame(seq, frame) {
        const line = decompressedRow(frame);
        const short = line === null ? null : (trimmed(line) ?? line);
        if (short !== null && short.length < frame.length) {
            this.row(short);
        } else {
            this.forward("frame", frame, seq);
        }
    }

    forward(name, data, ...more) {
        this.flush();
        out.bytes(name, data, ...more);
    }

    flush() {
        const end = this.#end;
        this.#end = 0;
        if (end > 0) {
            out.bytes("lines", this.#lines.subarray(0, end));
        }
    }

    #addLine(line) {
        this.#add(Buffer.concat([line, Buffer.of(LF)]));
    }

    /** Whole lines: they stay together, even if they are more than the buffer holds. */
    #add(lines) {
        if (this.#end + lines.length > this.#lines.length) {
            this.flush();
        }
        if (lines.length > this.#lines.length) {
            out.bytes("lines", lines);
        } else {
            lines.copy(this.#lines, this.#end);
            this.#end += lines.length;
        }
    }
}

/** `line` with what a preview shows of it alone, if that is less than half; else null. */
function trimmed(line) {
    let entry;
    try {
        entry = isUtf8(line) ? parse(line.toString()) : null;
    } catch {
        return null;
    }
    if (!isObject(entry)) {
        return null;
    }
    const short = Buffer.from(JSON.stringify({ type: entry.type, message: shownOf(entry) }));
    return 2 * short.length < line.length ? short : null;
}

function shownOf({ type, message }) {
    if (type !== "message" || !isObject(message)) {
        return undefined;
    }
    const { role, content } = message;
    const texts = Array.isArray(content) ? content.filter(isObject).map(({ text }) => ({ text })) : content;
    return { role, content: texts };
}

/** A line feed within a line, which is white space there if it is JSON at all, becomes another such character. */
function asOneLine(line) {
    if (!line.includes(LF)) {
        return line;
    }
    return Buffer.from(line).map((byte) => (byte === LF ? CR : byte));
}
