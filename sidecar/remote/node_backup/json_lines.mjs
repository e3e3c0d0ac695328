// Files of lines of JSON, written and read without being held.
//
// Node's JSON knows no BigInt, and older Nodes don't tell how a number was written: so both are done by hand.

import fs from "node:fs";

import { system } from "./errors.mjs";
import { MANIFEST_WRITE_BYTES, MAX_MANIFEST_LINE_BYTES } from "./backup_limits.mjs";
import { asPath, isObject, LF } from "./text.mjs";

const STRING_OR_LARGE_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d{16,}/g;

/** A line of a file of lines of JSON; whole numbers that are BigInts stay whole. */
export function jsonLine(fields) {
    const items = Object.entries(fields).map(([key, value]) => `${JSON.stringify(key)}:${jsonOf(value)}`);
    return Buffer.from(`{${items.join(",")}}\n`);
}

function jsonOf(value) {
    if (Array.isArray(value)) {
        return `[${value.map(jsonOf).join(",")}]`;
    }
    return typeof value === "bigint" ? String(value) : JSON.stringify(value);
}

/** The object in such a line; numbers that are too large for Node come as strings, which BigInt takes too. */
export function parseLine(line) {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(line);
    const isString = (match) => match.startsWith('"');
    const fields = JSON.parse(text.replace(STRING_OR_LARGE_NUMBER, (each) => (isString(each) ? each : `"${each}"`)));
    if (!isObject(fields)) {
        throw new TypeError("a line is no object");
    }
    return fields;
}

/** Writes lines to an open file, some at a time. */
export class LineWriter {
    #fd;
    #waiting = [];
    #waitingBytes = 0;

    constructor(fd) {
        this.#fd = fd;
    }

    write(line) {
        this.#waiting.push(line);
        this.#waitingBytes += line.length;
        if (this.#waitingBytes >= MANIFEST_WRITE_BYTES) {
            this.flush();
        }
    }

    flush() {
        const data = Buffer.concat(this.#waiting);
        this.#waiting = [];
        this.#waitingBytes = 0;
        for (let place = 0; place < data.length;) {
            place += system(null, () => fs.writeSync(this.#fd, data, place));
        }
    }
}

/** Reads a file line by line, holding no more than a line may have. */
export class LineReader {
    #fd;
    #buffer = Buffer.alloc(2 * MAX_MANIFEST_LINE_BYTES);
    #start = 0;
    #end = 0;
    #place = 0;

    constructor(path) {
        this.#fd = system(path, () => fs.openSync(asPath(path), "r"));
    }

    /** The next line with its LF, or what is left, or what fits; empty at the end. It holds until the next call. */
    next() {
        let found = -1;
        for (;;) {
            found = this.#buffer.subarray(this.#start, this.#end).indexOf(LF);
            if (found >= 0 || this.#end - this.#start >= MAX_MANIFEST_LINE_BYTES || !this.#fill()) {
                break;
            }
        }
        const most = Math.min(this.#end - this.#start, MAX_MANIFEST_LINE_BYTES);
        const size = found >= 0 && found < most ? found + 1 : most;
        this.#start += size;
        return this.#buffer.subarray(this.#start - size, this.#start);
    }

    close() {
        fs.closeSync(this.#fd);
    }

    #fill() {
        this.#buffer.copyWithin(0, this.#start, this.#end);
        [this.#start, this.#end] = [0, this.#end - this.#start];
        const room = this.#buffer.length - this.#end;
        const count = system(null, () => fs.readSync(this.#fd, this.#buffer, this.#end, room, this.#place));
        this.#end += count;
        this.#place += count;
        return count > 0;
    }
}
