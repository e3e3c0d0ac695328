// Reads the sessions of an OpenClaw home for clawpal-sidecar, on the host where they lie: the Node engine of README.md.
//
// It runs from memory: the bootstrap in engines.py makes this text a module by way of a data: URL, so it is one file
// with imports of Node's own modules only. Node 18 is enough for files; node:sqlite and zstd are used where they are.
//
// The rules are those of sidecar/stores and sidecar/core, in Python; tests/remote/test_engines.py holds both together. Where
// Node can't do what they do, or fails at it (a damaged zstd frame, say), the compressed bytes go to the other end.
//
// The main thread never waits for an event: it reads, counts and writes, one thing after another, so a slow reader
// slows the disk. A worker has stdin: it ends the process with its lease, and says that we live when nothing else does.
//
// Names and paths are held as *byte strings*: one character, U+0000 to U+00FF, for each byte. They compare as bytes do,
// take any name, and ASCII patterns work on them. wireName and fileName are the way out and in.

import { isUtf8 } from "node:buffer";
import { randomUUID } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import process from "node:process";
import { Worker } from "node:worker_threads";
import zlib from "node:zlib";

// Undefined where Node doesn't have it, or wants a flag for it; an import of what isn't there could not be caught.
const sqlite = process.getBuiltinModule?.("node:sqlite");
const hasZstd = typeof zlib.zstdDecompressSync === "function";

const MIB = 1024 * 1024;
const LEASE_MS = 20_000;
const REMOVAL_ENDS_WITHIN_MS = 5_000;
const FINISH_MS = 1_000;
const BEAT_MS = 700;
const LOOK_MS = 100;
const FLUSH_MS = 20;
const FLUSH_BYTES = 32 * 1024;

const BLOCK_BYTES = 256 * 1024;
const BLOCK_GROWTH_BYTES = MIB;
const MAX_ENTRY_BYTES = 256 * MIB;
const MAX_INDEX_PIECE_BYTES = 256 * MIB;
const MAX_HELD_COMPRESSED_BYTES = 128 * MIB;
const MAX_HELD_BYTES = 256 * MIB;
const MAX_WINDOW_LOG = 23;
const MAX_TIMESTAMP_CHARS = 64;
const MAX_TEXT_CHARS = 512;
const MAX_REREADS = 3;
const TRIM_OVER_BYTES = 16 * 1024;

const OPEN_FLAGS = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY;
const LF = 0x0a;
const CR = 0x0d;

// ---------------------------------------------------------------------------------------------------------------- text

const NON_ASCII = /[\x80-\xff]/;
const UTF8_CHARACTER =
    "[\\0-\\x7f]|[\\xc2-\\xdf][\\x80-\\xbf]|\\xe0[\\xa0-\\xbf][\\x80-\\xbf]|[\\xe1-\\xec\\xee\\xef][\\x80-\\xbf]{2}" +
    "|\\xed[\\x80-\\x9f][\\x80-\\xbf]|\\xf0[\\x90-\\xbf][\\x80-\\xbf]{2}|[\\xf1-\\xf3][\\x80-\\xbf]{3}" +
    "|\\xf4[\\x80-\\x8f][\\x80-\\xbf]{2}";
const INVALID_BYTE = new RegExp(`${UTF8_CHARACTER}|([\\x80-\\xff])`, "g");
const REPLACEMENT = "\xef\xbf\xbd";
const TO_ESCAPE = new RegExp(`(${REPLACEMENT}(?=[89a-f][0-9a-f]))|${UTF8_CHARACTER}|([\\x80-\\xff])`, "g");
const ESCAPED_BYTE = new RegExp(`${REPLACEMENT}([89a-f][0-9a-f])`, "g");
const LONE_SURROGATE = /\p{Surrogate}/gu;
const NOT_BLANK = /[^ \t\r\n]/;

const asPath = (name) => Buffer.from(name, "latin1");
const asBytes = (data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("latin1");
const decoded = (bytes) => Buffer.from(bytes, "latin1").toString();
const encoded = (text) => Buffer.from(text).toString("latin1");
const mended = (text) => text.replace(LONE_SURROGATE, "\ufffd");

/** The wire name of a name, as bytes: each byte that is no UTF-8 as U+FFFD and two hex digits. */
function wireBytes(name) {
    if (!NON_ASCII.test(name)) {
        return name;
    }
    const escape = (bytes) =>
        Array.from(bytes, (byte) => REPLACEMENT + byte.charCodeAt(0).toString(16).padStart(2, "0")).join("");
    return name.replace(TO_ESCAPE, (match, replacement, byte) => (replacement || byte ? escape(match) : match));
}

function wireName(name) {
    return NON_ASCII.test(name) ? decoded(wireBytes(name)) : name;
}

function fileName(wire) {
    return encoded(wire).replace(ESCAPED_BYTE, (_, digits) => String.fromCharCode(parseInt(digits, 16)));
}

/** What sorts as Python sorts names: by code points, each byte that is no UTF-8 as one from U+DC80 on. */
function sortKey(name) {
    if (!NON_ASCII.test(name)) {
        return name;
    }
    return name.replace(INVALID_BYTE, (match, byte) => {
        const code = match.charCodeAt(0);
        return byte ? `\xed${String.fromCharCode(0xb0 + (code >> 6), 0x80 + (code & 0x3f))}` : match;
    });
}

function compare(one, other) {
    return one < other ? -1 : Number(one > other);
}

const byName = (one, other) => compare(sortKey(one), sortKey(other));

/** The first `count` characters; a half of a surrogate pair counts as one. */
function firstCharacters(text, count) {
    return text.length <= count ? text : Array.from(text.slice(0, 2 * count)).slice(0, count).join("");
}

function hasAtMost(text, count) {
    return text.length <= count || (text.length <= 2 * count && Array.from(text).length <= count);
}

function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `joined("/a", "b")` and `joined("/a/", "b")` are the same; an absolute second part stands alone. */
function joined(folder, name) {
    return name.startsWith("/") ? name : folder === "" || folder.endsWith("/") ? folder + name : `${folder}/${name}`;
}

function baseName(path) {
    return path.slice(path.lastIndexOf("/") + 1);
}

// -------------------------------------------------------------------------------------------------------------- errors

/** What a system call said: the name of its error, and what it was given. */
class SystemError extends Error {
    constructor(code, given) {
        super(code);
        this.code = code;
        this.given = given;
    }
}

/** What sidecar/errors.py has a class for; `kind` names it. */
class Trouble extends Error {
    constructor(kind, message) {
        super(message);
        this.kind = kind;
    }
}

/** What was read of a transcript and what is left of it are not of one state: begin again. */
class Rewritten extends Error {}

/** There is no such session any more. */
class Vanished extends Error {}

const broken = (message) => new Trouble("broken_database", message);
const unreadable = (message) => new Trouble("source_unreadable", message);
const cutOff = () => new Trouble("broken_compression", "the compressed data ends in the middle");
const rewrittenMeanwhile = () => unreadable("the session was rewritten while it was read; try again");

function isTold(error) {
    return error instanceof SystemError || error instanceof Trouble;
}

/** Throws on what is a fault of this program, or a sign to code that called. */
function unlessTold(error) {
    if (!isTold(error)) {
        throw error;
    }
}

function told(error) {
    return error instanceof SystemError
        ? [error.code, error.given === null ? null : wireName(error.given), null]
        : [null, null, error.message];
}

/** What `call` returns; `given` is what Python's function would have been given, and tells of. */
function system(given, call) {
    try {
        return call();
    } catch (error) {
        throw error.syscall === undefined ? error : new SystemError(error.code, given);
    }
}

// -------------------------------------------------------------------------------------------------- output and watching

// Places in memory that the worker shares: who is writing, when the last write ended, and what is asked or over.
const WRITING = 0;
const WRITTEN_AT = 1;
const STOP = 2;
const DONE = 3;
const INPUT_ENDED = 4;
const ENDING = 5;
const shared = new Int32Array(new SharedArrayBuffer(6 * Int32Array.BYTES_PER_ELEMENT));
const nap = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

const sleep = (ms) => Atomics.wait(nap, 0, 0, ms);
const isStopAsked = () => Atomics.load(shared, STOP) === 1;

/** Runs in the worker, by its text alone: nothing from outside it but what it is given. */
function watch() {
    const fs = require("node:fs");
    const { workerData } = require("node:worker_threads");
    const { shared, place, folder, mayFinish, limits, startedAt } = workerData;
    const beat = Buffer.from('["beat"]\n');
    const input = Buffer.alloc(4096);
    let heardAt = Date.now();

    function end() {
        Atomics.store(shared, place.ENDING, 1);
        try {
            fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3, retryDelay: 5 });
        } finally {
            process.kill(process.pid, "SIGKILL");
        }
    }

    function onInputEnd() {
        Atomics.store(shared, place.INPUT_ENDED, 1);
        Atomics.notify(shared, place.INPUT_ENDED);
        if (mayFinish && !Atomics.load(shared, place.DONE)) {
            Atomics.store(shared, place.STOP, 1);
            setTimeout(end, limits.removalMs);
        } else if (Atomics.load(shared, place.DONE)) {
            setTimeout(end, limits.finishMs);
        } else {
            end();
        }
    }

    function listen() {
        fs.read(0, input, 0, input.length, null, (error, count) => {
            if (error?.code === "EAGAIN") {
                setTimeout(listen, limits.lookMs);
            } else if (error || count === 0) {
                onInputEnd();
            } else {
                heardAt = Date.now();
                listen();
            }
        });
    }

    function sayThatWeLive() {
        const isSilent = Date.now() - startedAt - Atomics.load(shared, place.WRITTEN_AT) >= limits.beatMs;
        if (isSilent && Atomics.compareExchange(shared, place.WRITING, 0, 1) === 0) {
            fs.write(1, beat, () => {
                Atomics.store(shared, place.WRITTEN_AT, Date.now() - startedAt);
                Atomics.store(shared, place.WRITING, 0);
                Atomics.notify(shared, place.WRITING);
            });
        }
    }

    listen();
    setInterval(() => {
        if (Date.now() - heardAt >= limits.leaseMs) {
            end();
        } else {
            sayThatWeLive();
        }
    }, limits.lookMs);
}

class Output {
    #startedAt = Date.now();
    #pending = "";
    #pendingSince = 0;
    #isLost = false;

    /** From now on the process ends with its input, or with its lease. */
    startWatch(folder, mayFinish) {
        const limits = {
            leaseMs: LEASE_MS,
            removalMs: REMOVAL_ENDS_WITHIN_MS,
            finishMs: FINISH_MS,
            beatMs: BEAT_MS,
            lookMs: LOOK_MS,
        };
        const place = { WRITING, WRITTEN_AT, STOP, DONE, INPUT_ENDED, ENDING };
        const workerData = { shared, place, folder, mayFinish, limits, startedAt: this.#startedAt };
        this.mayFinish = mayFinish;
        // Nothing may be written before the sentinel, and it is we who write that.
        Atomics.store(shared, WRITTEN_AT, 0x7fffffff);
        new Worker(`(${watch})()`, { eval: true, workerData }).unref();
    }

    begin(nonce) {
        this.#write(Buffer.from(`\nclawpal-helper ${nonce}\n`));
    }

    record(...items) {
        if (this.#pending === "") {
            this.#pendingSince = Date.now();
        }
        this.#pending += `${JSON.stringify(items)}\n`;
        this.tick();
    }

    failed(path, error) {
        this.record("failed", path, ...told(error));
    }

    /** A record that is followed by `data`. */
    bytes(name, data, ...more) {
        const head = `${this.#pending}${JSON.stringify([name, ...more, data.length])}\n`;
        this.#pending = "";
        this.#write(Buffer.from(head), data, Buffer.of(LF));
    }

    /** To be called between blocks, rows and files: what waits is written, if it is much or old. */
    tick() {
        if (this.#pending !== "") {
            if (this.#pending.length >= FLUSH_BYTES || Date.now() - this.#pendingSince >= FLUSH_MS) {
                this.flush();
            }
        }
    }

    flush() {
        const pending = this.#pending;
        this.#pending = "";
        if (pending !== "") {
            this.#write(Buffer.from(pending));
        }
    }

    /** Write whole records, which the worker's must not come between. */
    #write(...pieces) {
        while (Atomics.compareExchange(shared, WRITING, 0, 1) !== 0) {
            Atomics.wait(shared, WRITING, 1);
        }
        try {
            pieces.forEach((piece) => this.#writeAll(piece));
        } finally {
            Atomics.store(shared, WRITTEN_AT, Date.now() - this.#startedAt);
            Atomics.store(shared, WRITING, 0);
            Atomics.notify(shared, WRITING);
        }
    }

    #writeAll(data) {
        for (let place = 0; place < data.length && !this.#isLost; ) {
            try {
                place += fs.writeSync(1, data, place);
            } catch (error) {
                if (error.code === "EAGAIN") {
                    sleep(2);
                } else if (this.mayFinish) {
                    this.#isLost = true;
                    Atomics.store(shared, STOP, 1);
                } else {
                    endNow();
                }
            }
        }
    }
}

const out = new Output();

/** A folder for copies of databases, which nobody else can read, or guess. */
const privateFolder = {
    path: "",

    make() {
        system(encoded(this.path), () => fs.mkdirSync(this.path, { mode: 0o700 }));
        // The worker sets this before it removes the folder: one of us sees what the other has done.
        if (Atomics.load(shared, ENDING) === 1) {
            endNow();
        }
    },

    remove() {
        if (this.path !== "") {
            fs.rmSync(this.path, { recursive: true, force: true });
        }
    },
};

function endNow() {
    try {
        privateFolder.remove();
    } finally {
        process.kill(process.pid, "SIGKILL");
        sleep(FINISH_MS);
    }
}

/** An exit would wait for the worker's read, so for the end of the input. */
function finish() {
    Atomics.store(shared, DONE, 1);
    out.flush();
    Atomics.wait(shared, INPUT_ENDED, 0, FINISH_MS);
    if (Atomics.load(shared, INPUT_ENDED) === 1) {
        process.exit(0);
    }
    endNow();
}

// --------------------------------------------------------------------------------------------------------------- files

/** Open a regular file; the caller closes it. `given` is what an error names. */
function openRegular(path, given = path) {
    const fd = system(given, () => fs.openSync(asPath(path), OPEN_FLAGS));
    try {
        const found = system(null, () => fs.fstatSync(fd));
        if (!found.isFile()) {
            throw unreadable("not a regular file");
        }
        return { fd, sizeBytes: found.size, modifiedAtMs: found.mtimeMs };
    } catch (error) {
        fs.closeSync(fd);
        throw error;
    }
}

/** What is in a folder, as `fs.Dirent`, each with its name as a byte string in `name`. */
function listFolder(path) {
    const entries = system(path, () => fs.readdirSync(asPath(path), { withFileTypes: true, encoding: "buffer" }));
    for (const entry of entries) {
        entry.name = asBytes(entry.name);
    }
    return entries;
}

/** Whether `path` leads to something; what can't be found out counts as no. */
function exists(path) {
    try {
        fs.statSync(asPath(path));
        return true;
    } catch {
        return false;
    }
}

function isThere(path) {
    try {
        fs.lstatSync(asPath(path));
        return true;
    } catch {
        return false;
    }
}

/** A regular file or a link to one; also a broken link, since opening it will say what is wrong. */
function mayBeFile(entry, path) {
    if (!entry.isSymbolicLink()) {
        return entry.isFile();
    }
    try {
        return fs.statSync(asPath(path)).isFile();
    } catch {
        return true;
    }
}

/** Reads `left` bytes at most, from the beginning: what is appended meanwhile is a later state. */
class BoundedReader {
    #fd;
    #place = 0;

    constructor(fd, sizeBytes) {
        this.#fd = fd;
        this.left = sizeBytes;
    }

    get countBytes() {
        return this.#place;
    }

    read(buffer, start, end) {
        out.tick();
        const length = Math.min(end - start, this.left);
        const count = length && system(null, () => fs.readSync(this.#fd, buffer, start, length, this.#place));
        this.#place += count;
        this.left -= count;
        return count;
    }

    /** All of it, or, if the file turned out shorter, what there was. */
    readAll() {
        const data = Buffer.allocUnsafe(this.left);
        let end = 0;
        for (let count = -1; count !== 0; end += count) {
            count = this.read(data, end, data.length);
        }
        return data.subarray(0, end);
    }
}

/**
 * Reads blocks of whole records, each ended by `separator`, except the last, which the end of the data may end.
 *
 * The buffer is one block long, and grows for a longer record. One over the limit is passed over, and counted.
 */
class RecordBlocks {
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
function eachLine(buffer, start, end, use) {
    while (start < end) {
        const found = buffer.indexOf(LF, start);
        const stop = found < 0 || found >= end ? end : found;
        use(start, stop);
        start = stop + 1;
    }
}

// ---------------------------------------------------------------------------------------------------------------- zstd

const ZSTD_MAGIC = 0xfd2fb528;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4];

/** The parts of a frame's header, or null if it is none: where it ends, and which size it tells, if any. */
function zstdHeader(data, start) {
    const descriptor = data[start + 4];
    if (data.length - start < 6 || data.readUInt32LE(start) !== ZSTD_MAGIC) {
        return null;
    }
    const isSingle = (descriptor & 0x20) !== 0;
    const sizeAt = start + 5 + (isSingle ? 0 : 1) + DICTIONARY_ID_BYTES[descriptor & 3];
    const width = descriptor >> 6 ? 1 << (descriptor >> 6) : Number(isSingle);
    if (sizeAt + width > data.length) {
        return null;
    }
    const low = width === 8 ? data.readUInt32LE(sizeAt) : width && data.readUIntLE(sizeAt, width);
    const high = width === 8 ? data.readUInt32LE(sizeAt + 4) : 0;
    const told = low + high * 2 ** 32 + (width === 2 ? 256 : 0);
    return { end: sizeAt + width, contentBytes: width === 0 ? null : told, hasChecksum: (descriptor & 4) !== 0 };
}

/** Where the frame that begins at `start` ends; null if it doesn't. Node takes a cut-off one without a word. */
function zstdFrameEnd(data, start) {
    const header = zstdHeader(data, start);
    if (header === null) {
        return null;
    }
    let place = header.end;
    for (let isLast = false; !isLast; ) {
        if (place + 3 > data.length) {
            return null;
        }
        const block = data.readUIntLE(place, 3);
        const isRepeated = ((block >> 1) & 3) === 1;
        isLast = (block & 1) === 1;
        place += 3 + (isRepeated ? 1 : block >> 3);
    }
    place += header.hasChecksum ? 4 : 0;
    return place <= data.length ? place : null;
}

/** What the frames hold, one after another; null if Node can't tell, or it is more than may be held. */
function decompressed(data) {
    if (!hasZstd || data.length === 0) {
        return null;
    }
    const params = { [zlib.constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG };
    const contents = [];
    let room = MAX_HELD_BYTES;
    try {
        for (let start = 0, end; start < data.length; start = end) {
            end = zstdFrameEnd(data, start);
            if (end === null) {
                return null;
            }
            // Node's own call stops after the first frame.
            const frame = data.subarray(start, end);
            const content = zlib.zstdDecompressSync(frame, { params, maxOutputLength: Math.max(room, 1) });
            const { contentBytes } = zstdHeader(data, start);
            if (contentBytes !== null && contentBytes !== content.length) {
                return null;
            }
            room -= content.length;
            contents.push(content);
        }
    } catch {
        return null;
    }
    return contents.length === 1 ? contents[0] : Buffer.concat(contents);
}

/** The line that is a row's one frame; null if Node can't tell. */
function decompressedRow(frame) {
    return zstdFrameEnd(frame, 0) === frame.length ? decompressed(frame) : null;
}

// --------------------------------------------------------------------------------------------- what becomes of a transcript

/** The counts of one transcript, in the words of `sidecar/core/transcript.py`. */
class Tally {
    messages = 0;
    users = 0;
    assistants = 0;
    lastActivity = null;
    headerId = null;
    begun = false;
    skippedLines = 0;

    add(text) {
        let entry;
        try {
            entry = JSON.parse(text);
        } catch {
            this.skippedLines += NOT_BLANK.test(text);
            return;
        }
        if (!isObject(entry)) {
            this.skippedLines += 1;
            return;
        }
        if (!this.begun) {
            this.begun = true;
            if (entry.type === "session" && typeof entry.id === "string") {
                this.headerId = firstCharacters(mended(entry.id), MAX_TEXT_CHARS);
            }
        }
        if (entry.type === "message") {
            this.#addMessage(entry);
        }
    }

    #addMessage(entry) {
        const role = isObject(entry.message) ? entry.message.role : null;
        this.messages += 1;
        this.users += role === "user";
        this.assistants += role === "assistant";
        if (typeof entry.timestamp === "string" && hasAtMost(entry.timestamp, MAX_TIMESTAMP_CHARS)) {
            this.lastActivity = mended(entry.timestamp);
        }
    }

    get items() {
        const { messages, users, assistants, lastActivity, headerId, begun, skippedLines } = this;
        return [messages, users, assistants, lastActivity, headerId, begun, skippedLines];
    }
}

/** Where a transcript goes to be counted. What can't be opened is sent, between parts that are counted. */
class Counter {
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

/** Where a transcript goes to be shown: to the other end, without what a preview doesn't show. */
class Sender {
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
        entry = isUtf8(line) ? JSON.parse(line.toString()) : null;
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

// --------------------------------------------------------------------------------------------------- the session index

const MEMBER_END = "\n  },\n";
const NO_MEMBER = /^\{[ \t\n\r\f\v]*\}[ \t\n\r\f\v]*$/;
const END_OF_WHOLE_NUMBERS = 2n ** 62n;
const MAX_MODELS = 0xffff;
// Numbers that a double can't hold, and counts that are spelled as fractions, which count as absent.
const COUNT_IN_DOUBT = /"(?:totalTokens|updatedAt)"[ \t\r\n]*:[ \t\r\n]*-?[0-9]*(?:[.eE]|[0-9]{16})/;
const ABSENT = Object.freeze({ updatedAt: 0, totalTokens: 0, model: null });

const brokenIndex = (message) => new Trouble("broken_index", message);

/** What an index says of the sessions that it was asked to remember. */
class SessionIndex {
    #sessions;
    #models = new Set();

    constructor(ids) {
        this.#sessions = new Map(ids.map((id) => [id, ABSENT]));
    }

    clear() {
        this.#sessions.clear();
    }

    get(id) {
        return this.#sessions.get(id) ?? ABSENT;
    }

    /** Keep what `members` say; of two for one session, what the one updated later says. */
    remember(members) {
        for (const { sessionId, updatedAt, totalTokens, model } of members) {
            const known = this.#sessions.get(sessionId);
            if (known !== undefined && updatedAt >= known.updatedAt) {
                if (model !== null && this.#models.add(model).size > MAX_MODELS) {
                    throw brokenIndex("the session index names more than 65,535 models");
                }
                this.#sessions.set(sessionId, { updatedAt, totalTokens, model });
            }
        }
    }
}

/** The sessions of a JSON object of entries; null if `text` is none. */
function decodeMembers(text) {
    let members;
    try {
        members = JSON.parse(text, COUNT_IN_DOUBT.test(text) ? exactCount : undefined);
    } catch {
        return null;
    }
    return isObject(members) ? Object.values(members).filter(isObject).map(indexedSession) : null;
}

/** For `JSON.parse`, which from Node 21 on tells how a number is spelled; before, the nearest double has to do. */
function exactCount(key, value, context) {
    const isCount = key === "totalTokens" || key === "updatedAt";
    if (!isCount || typeof value !== "number" || context?.source === undefined) {
        return value;
    }
    if (!/^-?[0-9]+$/.test(context.source)) {
        return key === "totalTokens" ? null : value;
    }
    return Number.isSafeInteger(value) ? value : BigInt(context.source);
}

function indexedSession({ sessionId, updatedAt, totalTokens, model }) {
    return {
        sessionId: typeof sessionId === "string" ? mended(sessionId) : null,
        updatedAt: wholeNumber(typeof updatedAt === "number" ? Math.trunc(updatedAt) : updatedAt),
        totalTokens: wholeNumber(totalTokens),
        model: typeof model === "string" ? mended(model) : null,
    };
}

function wholeNumber(value) {
    const isWhole = typeof value === "bigint" || Number.isInteger(value);
    return isWhole && value >= 0 && value < END_OF_WHOLE_NUMBERS ? value : 0;
}

/** Fill `index` from the `sessions.json` at `path`; a missing file leaves it empty, and so does a broken one. */
function readIndex(path, index) {
    let file;
    try {
        file = openRegular(path);
    } catch (error) {
        if (error.code === "ENOENT") {
            return;
        }
        throw error;
    }
    try {
        readPieces(new BoundedReader(file.fd, file.sizeBytes), index);
    } catch (error) {
        index.clear();
        throw error;
    } finally {
        fs.closeSync(file.fd);
    }
}

/** OpenClaw ends each member in a line of its own: so many as are in a block are decoded at once. */
function readPieces(reader, index) {
    const blocks = new RecordBlocks(MEMBER_END, MAX_INDEX_PIECE_BYTES);
    let piece = [];
    let pieceBytes = 0;
    let retryAtBytes = 0;
    let lastWasWhole = false;
    for (let block = blocks.read(reader); block !== null; block = blocks.read(reader)) {
        const copy = Buffer.from(blocks.buffer.subarray(block.start, block.end));
        piece.push(copy);
        pieceBytes += block.end - block.start;
        if (pieceBytes > MAX_INDEX_PIECE_BYTES) {
            throw brokenIndex("the session index has a piece that can't be read, or an entry over the limit");
        }
        const endsMember = copy.subarray(-MEMBER_END.length).equals(Buffer.from(MEMBER_END));
        if (pieceBytes < retryAtBytes || !endsMember) {
            continue;
        }
        const members = decodeMembers(`${Buffer.concat(piece).toString().slice(0, -2)}}`);
        if (members === null) {
            retryAtBytes = 2 * pieceBytes;
            continue;
        }
        index.remember(members);
        piece = [Buffer.from("{")];
        pieceBytes = 1;
        lastWasWhole = true;
    }
    const text = Buffer.concat(piece).toString();
    if (lastWasWhole && NO_MEMBER.test(text)) {
        throw brokenIndex("the session index ends in a comma");
    }
    const members = blocks.overlong ? null : decodeMembers(text);
    if (members === null) {
        throw brokenIndex("the session index is not a JSON object");
    }
    index.remember(members);
}

/** The id under which an index knows a transcript: topics share the one of the session that they belong to. */
function indexedId(stem) {
    return wireName(stem.split("-topic-", 1)[0]);
}

// --------------------------------------------------------------------------------------- names of files, as session_names.py

const SESSIONS = "sessions";
const IMPORTS = "session-sqlite-import-archive";
const KINDS = { sessions: "sessions", sessions_archive: "archive" };
const ALL_FOLDERS = [...Object.keys(KINDS), IMPORTS];
const SUFFIX = ".jsonl";

const HEX_GROUPS = [8, 4, 4, 4, 12].map((digits) => `[0-9a-f]{${digits}}`).join("-");
const CHECKPOINT = new RegExp(`^(.+)\\.checkpoint\\.${HEX_GROUPS}$`, "s");
const TIMESTAMP = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}(?:\\.[0-9]{3})?Z";
const ARCHIVE = new RegExp(`^(.+)\\.jsonl\\.(reset|deleted)\\.${TIMESTAMP}((?:\\.[0-9a-f]{32})?\\.zst)?$`, "s");
const IMPORT = /^(.+)\.jsonl\.imported-[0-9]+(?:\.[0-9]+)?$/s;

function without(text, suffix) {
    return text.endsWith(suffix) ? text.slice(0, -suffix.length) : text;
}

/** What a file of this name is, as `{ role, stem, archivedAs }`; null if it is nothing of a session. */
function classify(name) {
    if (name.endsWith(SUFFIX)) {
        return ofJsonl(without(name, SUFFIX));
    }
    if (!name.includes(".jsonl.")) {
        const stem = without(name, ".trajectory-path.json");
        return stem !== "" && stem !== name ? named("trajectory", stem) : null;
    }
    if (name.endsWith(".jsonl.lock")) {
        const stem = without(name, ".jsonl.lock");
        return stem === "" ? null : named("lock", stem);
    }
    const found = ofMoved(name);
    return found !== null && isSession(found.stem) ? found : null;
}

function named(role, stem, archivedAs = null) {
    return { role, stem, archivedAs };
}

function ofJsonl(stem) {
    if (isSession(stem)) {
        return named("transcript", stem);
    }
    const match = CHECKPOINT.exec(stem);
    if (match !== null) {
        return named("checkpoint", match[1]);
    }
    const traced = without(stem, ".trajectory");
    return traced === "" ? null : named("trajectory", traced);
}

function ofMoved(name) {
    const archive = ARCHIVE.exec(name);
    if (archive !== null) {
        return named("archive", archive[1], archive[2]);
    }
    const imported = IMPORT.exec(name);
    if (imported !== null) {
        return named("import", imported[1], "imported");
    }
    return name.endsWith(".jsonl.zst") ? named("cold", without(name, ".jsonl.zst")) : null;
}

/** Whether `<stem>.jsonl` is a session's own transcript, live or wherever it was moved. */
function isSession(stem) {
    return stem !== "" && !stem.endsWith(".trajectory") && !CHECKPOINT.test(stem);
}

function isTranscript(name) {
    return name.endsWith(SUFFIX) && isSession(without(name, SUFFIX));
}

// ----------------------------------------------------------------------------------------------- where OpenClaw's files lie

/** The OpenClaw directory, absolute, from a request. */
function openclawDir({ openclawHome, env }) {
    const environ = Object.fromEntries(Object.entries(env).map(([name, value]) => [name, fileName(value)]));
    if (openclawHome !== null) {
        return joined(fileName(openclawHome), ".openclaw");
    }
    if (environ.CLAWPAL_OPENCLAW_DIR) {
        return expanded(environ.CLAWPAL_OPENCLAW_DIR, environ);
    }
    if (environ.OPENCLAW_HOME) {
        const home = expanded(environ.OPENCLAW_HOME, environ);
        const inner = joined(home, ".openclaw");
        return ["openclaw.json", "agents"].some((name) => exists(joined(inner, name))) ? inner : home;
    }
    return expanded(environ.OPENCLAW_STATE_DIR || "~/.openclaw", environ);
}

/** A path made absolute, without `.`, `..` and doubled slashes, `~` at its start replaced by the home directory. */
function expanded(path, environ) {
    if (path === "~" || path.startsWith("~/")) {
        if (!environ.HOME) {
            const what = "HOME is not set, and neither is a directory to use instead of it";
            throw new Trouble("home_unknown", `no home directory: ${what}`);
        }
        path = environ.HOME + path.slice(1);
    }
    const absolute = path.startsWith("/") ? path : joined(encoded(process.cwd()), path);
    const parts = [];
    for (const part of absolute.split("/")) {
        if (part === "..") {
            parts.pop();
        } else if (part !== "" && part !== ".") {
            parts.push(part);
        }
    }
    // POSIX leaves two slashes at the start, and no other number, to the system.
    return (/^\/\/(?!\/)/.test(absolute) ? "//" : "/") + parts.join("/");
}

/** The agents below a directory, by name, each `{ name, path }`; a link to a folder is one too. */
function listAgents(home) {
    const folder = joined(home, "agents");
    let entries;
    try {
        entries = listFolder(folder);
    } catch (error) {
        if (error.code === "ENOENT") {
            return [];
        }
        throw error;
    }
    return entries
        .map(({ name }, place) => ({ name, path: joined(folder, name), entry: entries[place] }))
        .filter(({ path, entry }) => mayBeFolder(entry, path))
        .sort((one, other) => byName(one.name, other.name));
}

function mayBeFolder(entry, path) {
    if (!entry.isSymbolicLink()) {
        return entry.isDirectory();
    }
    try {
        return fs.statSync(asPath(path)).isDirectory();
    } catch (error) {
        return error.code !== "ENOENT";
    }
}

function findAgent(home, agentId) {
    const found = listAgents(home).find(({ name }) => wireName(name) === agentId);
    if (found === undefined) {
        throw new SystemError("ENOENT", fileName(`agents/${agentId}`));
    }
    return found;
}

// ------------------------------------------------------------------------------------- sessions in files, as stores/jsonl.py

/** The transcripts and archives of one agent that are files; `database` knows which of them are copies. */
class JsonlStore {
    #agent;
    #blocks = new RecordBlocks();
    #uncheckedAgainst;
    #vanished = 0;
    stems = [];
    archives = [];

    constructor(agent, database) {
        this.#agent = agent;
        this.#uncheckedAgainst = database;
        ALL_FOLDERS.forEach((folder) => this.#list(folder));
        this.stems.sort(byName);
        this.#sortArchives();
    }

    get total() {
        this.#leaveOutCopies();
        return this.stems.length + this.archives.length - this.#vanished;
    }

    /** Says of each session what there is to say; `onTotal` is called when one turns out to be gone. */
    analyse(onTotal) {
        this.#leaveOutCopies();
        const index = this.#readIndex();
        for (const folder of ALL_FOLDERS) {
            const places = [...this.#placesIn(folder)];
            if (places.length === 0) {
                continue;
            }
            const path = joined(this.#agent.path, folder);
            try {
                checkFolder(path);
                places.forEach((place) => this.#analyseFile(place, index, onTotal));
            } catch (error) {
                unlessTold(error);
                out.failed(wireName(path), error);
            }
        }
    }

    /** Where the transcript of this id, a wire name, lies; null if it isn't here. */
    find(sessionId) {
        const sought = fileName(sessionId);
        const places = ALL_FOLDERS.flatMap((folder) => [...this.#placesIn(folder)]);
        return (
            places.find(({ isLive, id }) => isLive && id === sought) ??
            places.find(({ isLive, id }) => !isLive && id === sought) ??
            // Left over from a migration, with entries of its own.
            places.find(({ isLive, name }) => isLive && name === sought) ??
            null
        );
    }

    /** Send the transcript at a place that `find` gave. */
    send({ path, name }, sender) {
        const file = openRegular(path);
        try {
            this.#read(file, file.sizeBytes, name, sender);
        } finally {
            fs.closeSync(file.fd);
        }
    }

    #list(folder) {
        const path = joined(this.#agent.path, folder);
        let entries;
        try {
            entries = listFolder(path);
        } catch (error) {
            unlessTold(error);
            if (error.code !== "ENOENT") {
                out.failed(wireName(path), error);
            }
            return;
        }
        for (const entry of entries) {
            const { name } = entry;
            if (folder === SESSIONS && isTranscript(name)) {
                if (mayBeFile(entry, joined(path, name))) {
                    this.stems.push(without(name, SUFFIX));
                }
                continue;
            }
            const known = classify(name);
            if (known !== null && isArchive(known, folder) && mayBeFile(entry, joined(path, name))) {
                this.archives.push({ folder, name, stem: known.stem, archivedAs: known.archivedAs });
            }
        }
    }

    #sortArchives() {
        this.archives.sort((one, other) => compare(one.folder, other.folder) || byName(one.name, other.name));
    }

    *#placesIn(folder) {
        const path = joined(this.#agent.path, folder);
        if (folder === SESSIONS) {
            for (const stem of this.stems) {
                const name = stem + SUFFIX;
                yield { path: joined(path, name), name, id: stem, stem, isLive: true, archivedAs: null };
            }
        }
        for (const { folder: itsFolder, name, stem, archivedAs } of this.archives) {
            if (itsFolder === folder) {
                yield { path: joined(path, name), name, id: name, stem, isLive: false, archivedAs };
            }
        }
    }

    #analyseFile(place, index, onTotal) {
        out.tick();
        const { path, name, id, stem, isLive, archivedAs } = place;
        const counter = new Counter();
        let modifiedAtMs;
        try {
            // Python opens it relative to its folder, and names it so.
            const file = openRegular(path, name);
            modifiedAtMs = file.modifiedAtMs;
            try {
                this.#count(file, name, counter);
            } finally {
                fs.closeSync(file.fd);
            }
        } catch (error) {
            unlessTold(error);
            if (error.code === "ENOENT" && !isThere(path)) {
                this.#vanished += 1;
                onTotal();
            } else {
                out.failed(wireName(path), error);
            }
            return;
        }
        const kind = isLive ? "sessions" : "archive";
        const where = { id, filePath: wireName(path), kind, modifiedAtMs, store: "jsonl", archivedAs };
        tellSession(where, counter, index.get(indexedId(stem)));
    }

    /** Count a transcript; anew if it shrank, so was written anew: what was counted may be half of each state. */
    #count(file, name, counter) {
        let { sizeBytes } = file;
        for (let attempt = 1; attempt <= MAX_REREADS; attempt++) {
            counter.again();
            const isWhole = this.#read(file, sizeBytes, name, counter);
            if (isWhole) {
                return;
            }
            sizeBytes = system(null, () => fs.fstatSync(file.fd)).size;
        }
    }

    /** Hand a transcript on; false if the file was shorter than it should be. */
    #read(file, sizeBytes, name, sink) {
        const reader = new BoundedReader(file.fd, sizeBytes);
        if (name.endsWith(".zst")) {
            sendCompressed("piece", reader, sink);
        } else {
            this.#blocks.restart();
            for (let block = this.#blocks.read(reader); block !== null; block = this.#blocks.read(reader)) {
                sink.block(this.#blocks.buffer, block.start, block.end);
            }
            if (this.#blocks.overlong > 0) {
                sink.skip(this.#blocks.overlong);
            }
            sink.measure(reader.countBytes);
        }
        return reader.left === 0;
    }

    /** Keep of a database's sessions only the files that hold entries which it hasn't, as archives. Done once. */
    #leaveOutCopies() {
        const database = this.#uncheckedAgainst;
        this.#uncheckedAgainst = null;
        if (database === null) {
            return;
        }
        const leftovers = this.stems.filter((stem) => database.has(stem));
        this.stems = this.stems.filter((stem) => !database.has(stem));
        this.archives = this.archives.filter((archive) => !isImportOf(archive, database));
        for (const stem of leftovers) {
            if (!this.#isCopy(stem, database)) {
                this.archives.push({ folder: SESSIONS, name: stem + SUFFIX, stem, archivedAs: null });
            }
        }
        this.#sortArchives();
    }

    #isCopy(stem, database) {
        try {
            return database.holdsEntries(stem, this.#entryIds(joined(joined(this.#agent.path, SESSIONS), stem + SUFFIX)));
        } catch (error) {
            // What can't be read is not proved to be a copy.
            if (error instanceof SystemError || error instanceof OwnEntry) {
                return false;
            }
            throw error;
        }
    }

    /** The id of each entry but headers, in order. `OwnEntry` for a line that no database can be shown to hold. */
    *#entryIds(path) {
        const file = openRegular(path);
        try {
            const reader = new BoundedReader(file.fd, file.sizeBytes);
            const blocks = new RecordBlocks();
            for (let block = blocks.read(reader); block !== null; block = blocks.read(reader)) {
                const ids = [];
                eachLine(blocks.buffer, block.start, block.end, (from, to) => {
                    ids.push(...ownId(blocks.buffer.toString("utf8", from, to)));
                });
                yield* ids;
            }
        } finally {
            fs.closeSync(file.fd);
        }
    }

    #readIndex() {
        const path = joined(joined(this.#agent.path, SESSIONS), "sessions.json");
        const stems = [...this.stems, ...this.archives.map(({ stem }) => stem)];
        const index = new SessionIndex(stems.map(indexedId));
        try {
            if (stems.length > 0) {
                readIndex(path, index);
            }
        } catch (error) {
            unlessTold(error);
            out.failed(wireName(path), error);
        }
        return index;
    }
}

class OwnEntry extends Error {}

/** The id of the entry on a line, if it isn't blank or a header, in a list. */
function ownId(line) {
    if (!NOT_BLANK.test(line)) {
        return [];
    }
    let entry = null;
    try {
        entry = JSON.parse(line);
    } catch {
        throw new OwnEntry();
    }
    if (isObject(entry) && entry.type === "session") {
        return [];
    }
    if (!isObject(entry) || typeof entry.id !== "string") {
        throw new OwnEntry();
    }
    return [mended(entry.id)];
}

/** Whether a file that is no live transcript is a session nevertheless, where it lies. */
function isArchive({ role }, folder) {
    if (folder === IMPORTS) {
        return role === "import";
    }
    return role === "archive" || (role === "transcript" && folder !== SESSIONS);
}

/** Whether an imported file's session is in the database. The name has a key before the id, which may have dots. */
function isImportOf({ folder, stem }, database) {
    const isKnown = (_, at) => stem[at] === "." && database.has(stem.slice(at + 1));
    return folder === IMPORTS && Array.from(stem).some(isKnown);
}

function checkFolder(path) {
    const flags = OPEN_FLAGS | fs.constants.O_DIRECTORY;
    fs.closeSync(system(path, () => fs.openSync(asPath(path), flags)));
}

/** Hand on what is compressed: opened, if that is wanted and can be done here, else as it is. */
function sendCompressed(name, reader, sink) {
    const isHeld = !sink.wantsCompressed && hasZstd && reader.left <= MAX_HELD_COMPRESSED_BYTES;
    const data = isHeld ? reader.readAll() : null;
    const content = isHeld ? decompressed(data) : null;
    if (content !== null) {
        sink.block(content, 0, content.length);
        sink.measure(content.length);
        return;
    }
    forwardCompressed(name, isHeld ? [data] : chunksOf(reader), sink);
}

function forwardCompressed(name, chunks, sink) {
    let isEmpty = true;
    for (const chunk of chunks) {
        for (let start = 0; start < chunk.length; start += BLOCK_BYTES) {
            sink.forward(name, chunk.subarray(start, start + BLOCK_BYTES));
            isEmpty = false;
        }
    }
    if (isEmpty) {
        throw cutOff();
    }
}

function* chunksOf(reader) {
    const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    for (let count = reader.read(buffer, 0, BLOCK_BYTES); count > 0; count = reader.read(buffer, 0, BLOCK_BYTES)) {
        yield buffer.subarray(0, count);
    }
}

/** The record of a session whose transcript was counted; `entry` is what the index says of it. */
function tellSession({ id, filePath, kind, modifiedAtMs, store, archivedAs }, counter, entry) {
    const { sizeBytes, tally } = counter;
    const known = [asNumber(entry.updatedAt), asNumber(entry.totalTokens), entry.model];
    const place = [wireName(id), filePath, kind, sizeBytes, modifiedAtMs, store, archivedAs];
    out.record("session", ...place, ...tally.items, ...known);
}

/** What JSON takes: a BigInt only comes from where there is a `rawJSON`. */
function asNumber(value) {
    return typeof value === "bigint" ? JSON.rawJSON(String(value)) : value;
}

// ------------------------------------------------------------------------------------------------- an agent, as stores/agent.py

class AgentSessions {
    constructor(agent) {
        this.agent = agent;
        this.stores = [];
        try {
            system(agent.path, () => fs.statSync(asPath(agent.path)));
        } catch (error) {
            unlessTold(error);
            out.failed(wireName(agent.path), error);
            return;
        }
        this.stores.push(new JsonlStore(agent, null));
    }

    get total() {
        return this.stores.reduce((sum, store) => sum + store.total, 0);
    }

    analyse() {
        out.record("agent", wireName(this.agent.name), this.total);
        const onTotal = () => out.record("total", this.total);
        this.stores.forEach((store) => store.analyse(onTotal));
    }
}

// ---------------------------------------------------------------------------------------------------------------- the request

function analyse(home) {
    listAgents(home).forEach((agent) => new AgentSessions(agent).analyse());
}

const OPERATIONS = { analyze: analyse };

/** The line of the request; what comes after it is the lease. */
function readRequest() {
    const pieces = [];
    const piece = Buffer.alloc(BLOCK_BYTES);
    for (;;) {
        let count = 0;
        try {
            count = fs.readSync(0, piece);
        } catch (error) {
            if (error.code !== "EAGAIN") {
                throw error;
            }
            sleep(5);
            continue;
        }
        if (count === 0) {
            process.exit(1);
        }
        const end = piece.subarray(0, count).indexOf(LF);
        pieces.push(Buffer.from(piece.subarray(0, end < 0 ? count : end)));
        if (end >= 0) {
            return JSON.parse(Buffer.concat(pieces).toString());
        }
    }
}

function answer(request) {
    const nowMs = Date.now();
    const hello = (home) => out.record("hello", "node", process.versions.node, nowMs, home, sqlite !== undefined, hasZstd);
    let home;
    try {
        home = openclawDir(request);
    } catch (error) {
        hello(null);
        throw error;
    }
    hello(wireName(home));
    OPERATIONS[request.op](home, request);
    out.record("end");
}

function main() {
    const request = readRequest();
    if (!/^[0-9a-f]+$/.test(request.nonce) || !Object.hasOwn(OPERATIONS, request.op)) {
        process.exit(1);
    }
    privateFolder.path = `${os.tmpdir()}/clawpal-sidecar-${request.nonce}`;
    out.startWatch(privateFolder.path, request.op === "remove");
    out.begin(request.nonce);
    try {
        answer(request);
    } catch (error) {
        if (!isTold(error)) {
            // The module's address is its text.
            process.stderr.write(`${String(error.stack).replace(/data:text[^:)]*/g, "helper.mjs")}\n`);
        }
        const [code, given, message] = isTold(error) ? told(error) : [null, null, `the helper failed: ${error.name}`];
        const kind = error instanceof SystemError ? null : (error.kind ?? "remote_failed");
        out.record("fail", code, given, message, kind);
    } finally {
        privateFolder.remove();
    }
    finish();
}

main();
