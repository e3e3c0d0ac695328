// Cut what a reader delivers into blocks of whole records: the twin of sidecar/core/blocks.py.

import { BLOCK_BYTES, BLOCK_GROWTH_BYTES, MAX_ENTRY_BYTES } from "./limits.mjs";
import { LF } from "./text.mjs";

/**
 * Reads blocks of whole records, each ended by `separator`, except the last, which the end of the data may end.
 *
 * The buffer is one block long, and grows for a longer record. One over the limit is passed over, and counted.
 */
export class RecordBlocks {
    #separator;
    #maxRecordBytes;
    #start = 0;
    #end = 0;
    #isSkipping = false;

    constructor(separator = "\n", maxRecordBytes = MAX_ENTRY_BYTES) {
        this.#separator = Buffer.from(separator);
        this.#maxRecordBytes = maxRecordBytes;
        this.buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
        this.overlong = 0;
    }

    restart() {
        this.overlong = 0;
        this.#start = this.#end = 0;
        this.#isSkipping = false;
    }

    /** The next block as `{ start, end }` of `buffer`, or null at the end of the data. */
    read(reader) {
        const width = this.#separator.length;
        this.#makeRoom();
        for (;;) {
            const searched = Math.max(0, this.#end - width + 1);
            const stop = Math.min(this.buffer.length, this.#end + BLOCK_BYTES);
            const count = reader.read(this.buffer, this.#end, stop);
            if (count === 0) {
                return this.#lastBlock();
            }
            this.#end += count;
            if (this.#isSkipping && !this.#skip(searched)) {
                continue;
            }
            // Only in what is new: a long record would be searched again and again.
            const from = Math.max(searched, this.#start);
            const found = this.buffer.subarray(from, this.#end).lastIndexOf(this.#separator);
            if (found >= 0) {
                const block = { start: this.#start, end: from + found + width };
                this.#start = block.end;
                if (block.start < block.end) {
                    return block;
                }
            }
            if (this.#end - this.#start > this.#maxRecordBytes) {
                this.overlong += 1;
                this.#isSkipping = true;
                this.#drop();
            }
            this.#makeRoom();
        }
    }

    #makeRoom() {
        const left = this.#end - this.#start;
        if (this.#start > 0) {
            this.buffer.copyWithin(0, this.#start, this.#end);
            this.#start = 0;
            this.#end = left;
        }
        if (left === this.buffer.length) {
            this.#resize(left + Math.max(BLOCK_GROWTH_BYTES, left >> 3), left);
        } else if (this.buffer.length > BLOCK_BYTES && left < BLOCK_BYTES / 2) {
            this.#resize(BLOCK_BYTES, left);
        }
    }

    #resize(sizeBytes, left) {
        const larger = Buffer.allocUnsafeSlow(sizeBytes);
        this.buffer.copy(larger, 0, 0, left);
        this.buffer = larger;
    }

    #skip(searched) {
        const end = this.buffer.subarray(0, this.#end).indexOf(this.#separator, searched);
        if (end < 0) {
            this.#drop();
            this.#makeRoom();
            return false;
        }
        this.#start = end + this.#separator.length;
        this.#isSkipping = false;
        return true;
    }

    #drop() {
        this.#start = Math.max(this.#start, this.#end - this.#separator.length + 1);
    }

    #lastBlock() {
        const block = { start: this.#start, end: this.#end };
        this.#start = this.#end;
        return this.#isSkipping || block.start === block.end ? null : block;
    }
}

/** Calls `use` with the start and end of each line, its LF left out. */
export function eachLine(buffer, start, end, use) {
    while (start < end) {
        const found = buffer.indexOf(LF, start);
        const stop = found < 0 || found >= end ? end : found;
        use(start, stop);
        start = stop + 1;
    }
}
