// Reads the sessions of an OpenClaw home for clawpal-sidecar, on the host where they lie: the Node engine of README.md.
//
// It runs from memory: the bootstrap in engines.py makes this text a module by way of a data: URL, so it is one file
// with imports of Node's own modules only. Node 18 is enough for files; node:sqlite and zstd are used where they are.
//
// The rules are those of sidecar/stores and sidecar/core, in Python; tests/remote/test_engines.py holds both together.
// Where Node can't open zstd, or something is wrong with it, the compressed bytes go to the other end.
//
// The main thread never waits for an event: it reads, counts and writes, one thing after another, so a slow reader
// slows the disk. A worker has stdin: it ends the process with its lease, and says that we live when nothing else does.
//
// Names and paths are held as *byte strings*: one character, U+0000 to U+00FF, for each byte. They compare as bytes do,
// take any name, and ASCII patterns work on them. wireName and fileName are the way out and in.

import buffers from "node:buffer";
import { randomUUID } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import process from "node:process";
import { Worker } from "node:worker_threads";
import zlib from "node:zlib";

// Undefined where Node doesn't have it, or wants a flag for it; an import of what isn't there could not be caught.
const sqlite = process.getBuiltinModule?.("node:sqlite");
// Node 18.14 has it; before, no line is taken for one that can be cut.
const isUtf8 = buffers.isUtf8 ?? (() => false);
const hasZstd = typeof zlib.zstdDecompressSync === "function";

const MIB = 1024 * 1024;
const LEASE_MS = 20_000;
const REMOVAL_ENDS_WITHIN_MS = 5_000;
const FINISH_MS = 1_000;
const BEAT_MS = 700;
const LOOK_MS = 100;
const RETRY_MS = 2;
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
const MAX_DEPTH = 1_000;
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
    if (text.length <= count) {
        return text;
    }
    const characters = Array.from(text.slice(0, 2 * count));
    return characters.slice(0, count).join("");
}

function hasAtMost(text, count) {
    return text.length <= count || (text.length <= 2 * count && Array.from(text).length <= count);
}

/** As `JSON.parse`, which has no limit of its own: what is nested deeper than Python's parsers go is refused. */
function parse(text) {
    const value = JSON.parse(text);
    if (text.length > 2 * MAX_DEPTH && hasMany(text, MAX_DEPTH) && isDeep(value, MAX_DEPTH)) {
        throw new SyntaxError("nested too deep");
    }
    return value;
}

/** Whether there are more than `most` beginnings of arrays and objects, some of them perhaps in strings. */
function hasMany(text, most) {
    let count = 0;
    for (const mark of ["[", "{"]) {
        for (let place = text.indexOf(mark); place >= 0 && count <= most; place = text.indexOf(mark, place + 1)) {
            count += 1;
        }
    }
    return count > most;
}

function isDeep(value, most) {
    const isContainer = (inner) => typeof inner === "object" && inner !== null;
    let level = [value].filter(isContainer);
    for (let depth = 1; level.length > 0 && depth <= most; depth++) {
        level = level.flatMap((container) => Object.values(container).filter(isContainer));
    }
    return level.length > 0;
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

/** What sidecar/errors.py has a class for; `kind` names it. The message is a byte string, for the names in it. */
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
        : [null, null, wireName(error.message)];
}

/** What `call` returns; `given` is what Python's function would have been given, and tells of. */
function system(given, call) {
    try {
        return call();
    } catch (error) {
        throw error.syscall === undefined ? error : new SystemError(error.code, given);
    }
}

// ------------------------------------------------------------------------------------------------- output and watching

// Places in memory that the worker shares: who is writing, when the last write ended, and what is asked or over.
const WRITING = 0;
const WRITTEN_AT = 1;
const STOP = 2;
const DONE = 3;
const INPUT_ENDED = 4;
const ENDING = 5;
const HANDED_OVER = 6;
const shared = new Int32Array(new SharedArrayBuffer(7 * Int32Array.BYTES_PER_ELEMENT));
const nap = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

const sleep = (ms) => Atomics.wait(nap, 0, 0, ms);
const isStopAsked = () => Atomics.load(shared, STOP) === 1;

/** Runs in the worker, by its text alone: nothing from outside it but what it is given. */
function watch() {
    const fs = require("node:fs");
    const { parentPort, workerData } = require("node:worker_threads");
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

    function tell(what, value) {
        Atomics.store(shared, what, value);
        Atomics.notify(shared, what);
    }

    /** What is being written may never be: nobody waits for it any more. */
    function askToStop() {
        tell(place.STOP, 1);
        tell(place.HANDED_OVER, 0);
    }

    function onInputEnd() {
        tell(place.INPUT_ENDED, 1);
        if (mayFinish && !Atomics.load(shared, place.DONE)) {
            askToStop();
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
        const isWanted = isSilent && !Atomics.load(shared, place.DONE);
        if (isWanted && Atomics.compareExchange(shared, place.WRITING, 0, 1) === 0) {
            fs.write(1, beat, () => {
                Atomics.store(shared, place.WRITTEN_AT, Date.now() - startedAt);
                tell(place.WRITING, 0);
            });
        }
    }

    function write(data) {
        fs.write(1, data, (error, count) => {
            if (error?.code === "EAGAIN") {
                setTimeout(write, limits.retryMs, data);
            } else if (error) {
                askToStop();
            } else if (count < data.length) {
                write(data.subarray(count));
            } else {
                tell(place.HANDED_OVER, 0);
            }
        });
    }

    listen();
    parentPort.on("message", write);
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
    #mayFinish = false;
    #worker;
    isLost = false;

    /** From now on the process ends with its input, or with its lease. */
    startWatch(folder, mayFinish) {
        const limits = {
            leaseMs: LEASE_MS,
            removalMs: REMOVAL_ENDS_WITHIN_MS,
            finishMs: FINISH_MS,
            beatMs: BEAT_MS,
            lookMs: LOOK_MS,
            retryMs: RETRY_MS,
        };
        const place = { WRITING, WRITTEN_AT, STOP, DONE, INPUT_ENDED, ENDING, HANDED_OVER };
        const workerData = { shared, place, folder, mayFinish, limits, startedAt: this.#startedAt };
        this.#mayFinish = mayFinish;
        // Nothing may be written before the sentinel, and it is we who write that.
        Atomics.store(shared, WRITTEN_AT, 0x7fffffff);
        this.#worker = new Worker(`(${watch})()`, { eval: true, workerData });
        this.#worker.unref();
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
        if (this.#mayFinish) {
            this.#handOver(data);
            return;
        }
        for (let place = 0; place < data.length;) {
            try {
                place += fs.writeSync(1, data, place);
            } catch (error) {
                if (error.code !== "EAGAIN") {
                    endNow();
                }
                sleep(RETRY_MS);
            }
        }
    }

    /** Have the worker write, so that we need not wait for a reader who has stopped when there is something to finish. */
    #handOver(data) {
        if (this.isLost) {
            return;
        }
        Atomics.store(shared, HANDED_OVER, 1);
        this.#worker.postMessage(data);
        while (Atomics.load(shared, HANDED_OVER) === 1 && !isStopAsked()) {
            Atomics.wait(shared, HANDED_OVER, 1, LOOK_MS);
        }
        this.isLost = isStopAsked();
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
    // An exit would wait for a write, too, that nobody takes.
    if (Atomics.load(shared, INPUT_ENDED) === 1 && !out.isLost) {
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
    const contentBytes = width === 0 ? null : low + high * 2 ** 32 + (width === 2 ? 256 : 0);
    return { end: sizeAt + width, contentBytes, hasChecksum: (descriptor & 4) !== 0 };
}

/** Where the frame that begins at `start` ends; null if it doesn't. Node takes a cut-off one without a word. */
function zstdFrameEnd(data, start) {
    const header = zstdHeader(data, start);
    if (header === null) {
        return null;
    }
    let place = header.end;
    for (let isLast = false; !isLast;) {
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

// ---------------------------------------------------------------------------------------- what becomes of a transcript

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
            entry = parse(text);
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

// --------------------------------------------------------------------------------- names of files, as session_names.py

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

// ------------------------------------------------------------------------------------------ where OpenClaw's files lie

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

// ------------------------------------------------------------------------------- sessions in files, as stores/jsonl.py

/** The transcripts and archives of one agent that are files; `database` knows which of them are copies. */
class JsonlStore {
    #agent;
    #failed;
    #blocks = new RecordBlocks();
    #uncheckedAgainst;
    #vanished = 0;
    stems = [];
    archives = [];

    constructor(agent, database, failed) {
        this.#agent = agent;
        this.#failed = failed;
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
                this.#failed(wireName(path), error);
            }
        }
    }

    /** How to send a transcript, given its wire name: a function of a `Sender`; null if it isn't here. */
    find(sessionId) {
        const sought = fileName(sessionId);
        const places = ALL_FOLDERS.flatMap((folder) => [...this.#placesIn(folder)]);
        const found =
            places.find(({ isLive, id }) => isLive && id === sought) ??
            places.find(({ isLive, id }) => !isLive && id === sought) ??
            // Left over from a migration, with entries of its own.
            places.find(({ isLive, name }) => isLive && name === sought);
        return found === undefined ? null : (sender) => this.#send(found, sender);
    }

    #send({ path, name }, sender) {
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
                this.#failed(wireName(path), error);
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
                this.#failed(wireName(path), error);
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
        const ids = this.#entryIds(joined(joined(this.#agent.path, SESSIONS), stem + SUFFIX));
        try {
            return database.holdsEntries(stem, ids);
        } catch (error) {
            // What can't be read is not proved to be a copy.
            if (error instanceof SystemError || error instanceof OwnEntry) {
                return false;
            }
            throw error;
        } finally {
            ids.return();
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
            this.#failed(wireName(path), error);
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
        entry = parse(line);
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

// -------------------------------------------------------------------------------- a database, as stores/sqlite_open.py

const NO_SQLITE = "the database needs Node 22.13 or newer, or Python 3 with sqlite3, on the host";
const DATABASE = "agent/openclaw-agent.sqlite";
const CACHE_KIB = 256;
const BUSY_TIMEOUT_MS = 50;
const BUSY_RETRY_MS = 5;
const MAX_BUSY_MS = 5_000;
const LOOK_AGAIN_MS = 20;
const SETTLED_MS = 20;
const MOUNTS = "/proc/self/mountinfo";
// File systems on which another kernel may hold the database open: neither its locks nor its -shm are ours to see.
const SHARED_FILE_SYSTEMS = /^(?:9p|afs|ceph|cifs|drvfs|lustre|nfs|nfs4|prl_fs|smb3|smbfs|vboxsf|virtiofs)$|^fuse\./;

const [PERM, BUSY, LOCKED, NO_MEMORY, READ_ONLY, IO_ERROR] = [3, 5, 6, 7, 8, 10];
const [CORRUPT, CANT_OPEN, PROTOCOL, NO_DATABASE] = [11, 14, 15, 26];
// What a writer brings about that will soon be done. A reader that may not write finds "read only" where another
// process is just about to make the index of its WAL anew.
const PASSING = new Set([BUSY, LOCKED, PROTOCOL, READ_ONLY]);
const UNREADABLE = new Set([CANT_OPEN, IO_ERROR, PERM, NO_MEMORY]);

/** The database changes as we look; try again. */
class Unsettled extends Error {}

/** How the file at `path` stands; null if there is none. */
function stampOf(path) {
    let found;
    try {
        found = system(path, () => fs.statSync(asPath(path), { bigint: true }));
    } catch (error) {
        if (error.code === "ENOENT") {
            return null;
        }
        throw error;
    }
    if (!found.isFile()) {
        throw unreadable("not a regular file");
    }
    const state = `${found.ino} ${found.size} ${found.mtimeNs}`;
    return { state, sizeBytes: Number(found.size), modifiedAtMs: Number(found.mtimeNs / 1_000_000n) };
}

/** How a database and the files beside it stand. Never opened here: that would drop SQLite's locks (FIELD-NOTES). */
function lookAt(path) {
    const [database, wal, shm, journal] = ["", "-wal", "-shm", "-journal"].map((suffix) => stampOf(path + suffix));
    return { database, wal, shm, journal };
}

const holds = (stamp) => stamp !== null && stamp.sizeBytes > 0;
const isSame = (one, other) => one?.state === other?.state;

function isSameLook(one, other) {
    return ["database", "wal", "shm", "journal"].every((name) => isSame(one[name], other[name]));
}

/** How a database may be read, where no other kernel has it. */
function wayIn({ wal, shm, journal }) {
    if (holds(journal) || (holds(wal) && shm === null)) {
        return "copy"; // to be recovered there, and only there
    }
    return wal !== null && shm !== null ? "shared" : "alone";
}

/** Whether a change from now on would show: the clock of the file system moves in steps of some milliseconds. */
function isSettled({ database, journal }) {
    const now = Date.now();
    return [database, journal].every((stamp) => stamp === null || Math.abs(now - stamp.modifiedAtMs) > SETTLED_MS);
}

function isOnSharedFileSystem(path) {
    let mounts;
    try {
        mounts = fs.readFileSync(MOUNTS, "latin1");
    } catch {
        return false; // not Linux
    }
    const device = BigInt(system(path, () => fs.statSync(asPath(path), { bigint: true })).dev);
    const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
    const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
    const line = mounts.split("\n").find((mount) => mount.split(" ", 3)[2] === `${major}:${minor}`);
    const kind = line?.split(" - ")[1]?.split(" ", 1)[0];
    return kind !== undefined && SHARED_FILE_SYSTEMS.test(kind);
}

/** Copy what `look` found to `copy`; false if it changed meanwhile, so that the copy is of no one state. */
function copyDatabase(path, look, copy) {
    const stamps = { "": look.database, "-wal": look.wal, "-journal": look.journal };
    const neededBytes = Object.values(stamps).reduce((sum, stamp) => sum + (stamp?.sizeBytes ?? 0), 0);
    const { bavail, bsize } = fs.statfsSync(os.tmpdir());
    if (bavail * bsize < neededBytes) {
        throw unreadable(`no space for a private copy of the database in ${encoded(os.tmpdir())}`);
    }
    for (const [suffix, stamp] of Object.entries(stamps)) {
        if (holds(stamp)) {
            try {
                fs.copyFileSync(asPath(path + suffix), copy + suffix, fs.constants.COPYFILE_FICLONE);
            } catch (error) {
                throw unreadable(`no private copy of the database could be made: ${error.code}`);
            }
        }
    }
    const now = lookAt(path);
    // A WAL that has grown is a later state; every commit in it has its checksum.
    return isSame(now.database, look.database) && isSame(now.journal, look.journal);
}

function uriOf(path, how) {
    const escape = (character) => `%${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
    return `file:${path.replace(/[^A-Za-z0-9/._-]/g, escape)}?${how}`;
}

let urisAreTaken = null;

/** Whether this Node hands a `file:` URI to SQLite as one, which else would be the name of a file. */
function takesUris() {
    if (urisAreTaken === null) {
        try {
            new sqlite.DatabaseSync("file:probe?mode=memory", { readOnly: true }).close();
            urisAreTaken = true;
        } catch {
            urisAreTaken = false;
        }
    }
    return urisAreTaken;
}

/** A connection in autocommit, so that a transaction is where we say. Whole numbers come as BigInt. */
class Connection {
    #database;
    #statements = new Map();

    constructor(name, options) {
        this.#database = new sqlite.DatabaseSync(name, options);
        try {
            this.#database.exec(`PRAGMA cache_size = -${CACHE_KIB}`);
            this.#database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
            // Against a file that was made to harm: no functions in its schema, no cells beyond their page.
            this.#database.exec("PRAGMA trusted_schema = OFF");
            this.#database.exec("PRAGMA cell_size_check = ON");
        } catch (error) {
            this.close();
            throw error;
        }
    }

    close() {
        this.#statements.clear();
        this.#database.close();
    }

    /** What `work` gets out of one state. */
    inTransaction(work) {
        this.#database.exec("BEGIN");
        try {
            return work(this);
        } finally {
            try {
                this.#database.exec("ROLLBACK");
            } catch {
                // SQLite has rolled back by itself.
            }
        }
    }

    all(query, bound = {}) {
        return this.#prepared(query).all(bound);
    }

    get(query, bound = {}) {
        return this.#prepared(query).get(bound) ?? null;
    }

    iterate(query, bound = {}) {
        return this.#prepared(query).iterate(bound);
    }

    #prepared(query) {
        let statement = this.#statements.get(query);
        if (statement === undefined) {
            statement = this.#database.prepare(query);
            statement.setReadBigInts(true);
            this.#statements.set(query, statement);
        }
        return statement;
    }
}

/** The database at a path, read in short transactions; opened when it is first read, and again after `close`. */
class Database {
    #path;
    #connection = null;
    #look = null;
    #lookedAt = 0;
    #wayIn = "alone";

    constructor(path) {
        // SQLite follows links too, and has its -wal beside what they lead to.
        try {
            this.#path = asBytes(fs.realpathSync(asPath(path), "buffer"));
        } catch {
            this.#path = path;
        }
    }

    get isThere() {
        return isThere(this.#path);
    }

    /** What `work` gets out of one state of the database; it may be called again. */
    read(work) {
        const giveUpAt = Date.now() + MAX_BUSY_MS;
        for (;;) {
            out.tick();
            try {
                return this.#readOnce(work);
            } catch (error) {
                this.#passOver(error);
            }
            if (Date.now() >= giveUpAt) {
                throw unreadable("the database is busy: it changes, or is locked, all the time; try again");
            }
            sleep(BUSY_RETRY_MS);
        }
    }

    close() {
        this.#connection?.close();
        this.#connection = null;
    }

    /** Returns if it may be tried again. */
    #passOver(error) {
        if (error instanceof Unsettled) {
            this.close();
        } else if (error.code === "ERR_SQLITE_ERROR") {
            if (this.#hasMoved()) {
                this.close();
            } else if (!PASSING.has(error.errcode & 0xff)) {
                throw described(error);
            }
        } else if (error instanceof Trouble && this.#hasMoved()) {
            // What it complains of may be half of one state and half of another.
            this.close();
        } else {
            throw error;
        }
    }

    #readOnce(work) {
        this.#connection ??= this.#open();
        const result = this.#connection.inTransaction(work);
        if (this.#wayIn === "alone" && !this.#wasAlone()) {
            throw new Unsettled();
        }
        return result;
    }

    #open() {
        this.#look = null;
        if (sqlite === undefined) {
            throw unreadable(NO_SQLITE);
        }
        out.flush(); // this may take long
        const look = lookAt(this.#path);
        this.#look = look;
        this.#lookedAt = Date.now();
        if (look.database === null) {
            throw new SystemError("ENOENT", this.#path);
        }
        if (look.database.sizeBytes === 0 && !holds(look.wal)) {
            throw broken("the database is an empty file");
        }
        this.#wayIn = !takesUris() || isOnSharedFileSystem(this.#path) ? "copy" : wayIn(look);
        if (this.#wayIn === "shared") {
            return new Connection(uriOf(this.#path, "mode=ro&readonly_shm=1"), { readOnly: true });
        }
        if (!isSettled(look)) {
            throw new Unsettled();
        }
        return this.#wayIn === "alone"
            ? new Connection(uriOf(this.#path, "mode=ro&immutable=1"), { readOnly: true })
            : this.#openCopy(look);
    }

    /** A connection to a private copy, which is recovered there as the original would be here. */
    #openCopy(look) {
        privateFolder.make();
        try {
            const copy = `${privateFolder.path}/copy.sqlite`;
            if (!copyDatabase(this.#path, look, copy)) {
                throw new Unsettled();
            }
            // Read-only, so that closing it doesn't write the WAL into it; only a journal has to be rolled back.
            const connection = new Connection(copy, { readOnly: !holds(look.journal) });
            try {
                connection.get("SELECT count(*) FROM sqlite_schema");
            } catch (error) {
                connection.close();
                throw error;
            }
            return connection;
        } finally {
            // It holds secrets: once its files are open, not even a process that is killed leaves it behind.
            privateFolder.remove();
        }
    }

    /** Whether what was read may be no state of the database, since it isn't as it was when it was opened. */
    #hasMoved() {
        if (this.#look === null || this.#wayIn === "copy") {
            return false;
        }
        const look = lookAt(this.#path);
        this.#lookedAt = Date.now();
        return this.#wayIn === "alone" ? !isSameLook(look, this.#look) : wayIn(look) !== "shared";
    }

    /**
     * Whether nobody has written to the file since it was opened: without locks, what was read may be torn then.
     *
     * Who opens it to write makes a WAL or a journal long before; to look for those now and then is enough.
     */
    #wasAlone() {
        if (Date.now() - this.#lookedAt > LOOK_AGAIN_MS) {
            return !this.#hasMoved();
        }
        return isSame(stampOf(this.#path), this.#look.database);
    }
}

function described(error) {
    const code = error.errcode & 0xff;
    const message = encoded(error.message);
    if (code === NO_DATABASE) {
        return broken("the file is not an SQLite database, or is encrypted");
    }
    if (code === CORRUPT) {
        return broken(`the database is damaged: ${message}`);
    }
    if (UNREADABLE.has(code)) {
        return unreadable(`the database can't be read: ${message}`);
    }
    return broken(`SQLite ${process.versions.sqlite} can't read the database: ${message}`);
}

// ------------------------------------------------------------------- what a database holds, as stores/sqlite_tables.py

const EVENTS = "transcript_events";
const IDENTITIES = "transcript_event_identities";
const GENERATIONS = "transcript_rewrite_watermarks";
const ARCHIVES = "session_transcript_archives";
const COLD = "session_transcript_cold_archives";
const INDEXES = ["session_nodes", "session_entries"];
const NEEDED = {
    [EVENTS]: ["created_at", "event_json", "seq", "session_id"],
    [ARCHIVES]: ["archive_blob", "archive_name", "created_at", "encoding", "reason", "session_id"],
    [COLD]: ["archive_blob", "archive_name", "archived_at", "raw_bytes", "session_id", "storage"],
};
const MAX_PAGE_IDS = 250;
const MAX_INDEX_ENTRY_BYTES = 16 * MIB;

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

const isBytes = (type) => type === "text" || type === "blob";

/** Which columns the tables have that matter: tables and columns are looked up, never inferred from a number. */
class Tables {
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
function* merged(one, other, key) {
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

/** The ids of the sessions that have rows, or had before they were put into cold storage, in order. */
function* sessionIds(database, tables) {
    const idsIn = (table, query) => (tables.has(table) ? idsOf(database, query) : [].values());
    let before = null;
    for (const { id } of merged(idsIn(EVENTS, NEXT_LIVE), idsIn(COLD, NEXT_COLD), ({ id }) => id)) {
        if (id !== before) {
            yield id;
        }
        before = id;
    }
}

/** Call `remember` with the text of every entry of the index; with null for one that is none, or too large. */
function readEntries(database, table, remember) {
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

// -------------------------------------------------- the transcripts of a database, as stores/sqlite_rows.py and others

const MAX_PAGE_ROWS = 4_096;
const MAX_PAGE_SIZES = 512;
const MAX_BOUND_IDS = 500;
const MAX_SOUGHT_IDS = 10_000;
const MAX_MARK_BYTES = 64 * 1024;
const BEFORE_ALL = -(2n ** 63n);
const AFTER_ALL = 2n ** 63n - 1n;
const NEITHER = "it is neither text nor zstd";
const THIS = "WHERE session_id = CAST(:id AS TEXT)";
const COLD_NAME = /^[0-9a-f]{64}\.jsonl\.zst$/;
const SURROGATE_ESCAPE = /\\u[dD][89a-fA-F]/;

const undecodable = (seq, why) => broken(`row ${seq} of the session can't be decoded: ${why}`);
const noNumber = () => broken("the database is damaged: a row has no number");

/** A time of a column, which only a strict table can't hold something else in. */
function timeMs(value) {
    return typeof value === "bigint" || typeof value === "number" ? Number(value) : 0;
}

/**
 * Reads the rows of one session after another as they stood when its reading began: later ones are a later state.
 *
 * That they are of one state is seen by the generation that OpenClaw gives them anew when it rewrites them, and where
 * there is none (schema 8) by their count, the numbers that SQLite gave them, and the text of one.
 */
class LiveReader {
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

/** Any transcript of a database by its session's id or its archive's name, wherever it lies: rows, cold, archived. */
class Transcripts {
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

/** Reads what is in memory already. */
class BufferReader {
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

function sendText(text, sink) {
    sink.block(text, 0, text.length);
    sink.measure(text.length);
}

/** Hand on the rows in cold storage's records; when the last was written, or null if that isn't known here. */
function sendCold(reader, sink) {
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

// ------------------------------------------------------------------------- sessions in a database, as stores/sqlite.py

/** The sessions in one agent's database: by id, live or in cold storage, then archives by name. */
class SqliteStore {
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
                for (const row of tables.has(ARCHIVES) ? idsOf(this.#database, NEXT_ARCHIVED) : []) {
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

const FORWARDER = { forward: (name, data) => out.bytes(name, data) };

/** What `read` gives; it is called again when the session turned out to be rewritten, or moved, meanwhile. */
function inOneState(read) {
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

// ---------------------------------------------------------------------------------------- an agent, as stores/agent.py

function hasDatabase({ path }) {
    return exists(joined(path, DATABASE));
}

/** The stores of one agent. Files come first, then what is in the database alone. */
class AgentSessions {
    #stores = [];

    constructor(agent, failed) {
        this.name = wireName(agent.name);
        try {
            system(agent.path, () => fs.statSync(asPath(agent.path)));
        } catch (error) {
            // A loop of links, say: one failed item, not one for each folder that should be in it.
            unlessTold(error);
            failed(wireName(agent.path), error);
            return;
        }
        const database = hasDatabase(agent) ? new SqliteStore(agent, failed) : null;
        this.#stores = [new JsonlStore(agent, database, failed)];
        if (database !== null) {
            this.#stores.push(database);
        }
    }

    get total() {
        return this.#stores.reduce((sum, store) => sum + store.total, 0);
    }

    analyse() {
        out.record("agent", this.name, this.total);
        const onTotal = () => out.record("total", this.total);
        this.#stores.forEach((store) => store.analyse(onTotal));
    }

    /** How to send a transcript, given its wire name: a function of a `Sender`; null if there is none of that id. */
    find(sessionId) {
        // The database first: a file of the same id is a copy of what was in it once. One that is sure to be unreadable
        // comes last, so that it doesn't keep the files from being shown.
        const stores = sqlite === undefined ? this.#stores : [...this.#stores].reverse();
        for (const store of stores) {
            const send = store.find(sessionId);
            if (send !== null) {
                return send;
            }
        }
        return null;
    }
}

// --------------------------------------------------------------------------------------------------- what is asked for

const tellFailure = (path, error) => out.record("failed", path, ...told(error));

function analyse(home) {
    listAgents(home).forEach((agent) => new AgentSessions(agent, tellFailure).analyse());
}

/** What lies in the session folders and databases, sorted by path. */
function tellFiles(home) {
    // The slash counts: a name that goes on with a character below it comes before the shorter name.
    const place = ({ name }) => `${wireBytes(name)}/`;
    for (const agent of listAgents(home).sort((one, other) => compare(place(one), place(other)))) {
        if (hasDatabase(agent)) {
            tellDatabaseFiles(agent);
        }
        for (const [folder, kind] of Object.entries(KINDS)) {
            const name = wireName(agent.name);
            tellFilesBelow(`${joined(agent.path, folder)}/`, `agents/${name}/${folder}/`, { name, kind });
        }
    }
}

function tellDatabaseFiles(agent) {
    try {
        new SqliteStore(agent, tellFailure).tellFiles();
    } catch (error) {
        unlessTold(error);
        tellFailure(wireName(agent.path), error);
    }
}

/** In each folder names are sorted with a slash behind those of folders. No link to a folder is followed. */
function tellFilesBelow(path, relativePath, owner) {
    for (const name of sortedNames(path)) {
        out.tick();
        if (name.endsWith("/")) {
            tellFilesBelow(path + name, relativePath + wireName(name), owner);
            continue;
        }
        try {
            const found = system(path + name, () => fs.statSync(asPath(path + name)));
            if (found.isFile()) {
                const shown = [wireName(path) + wireName(name), relativePath + wireName(name)];
                out.record("file", ...shown, owner.name, owner.kind, found.size);
            }
        } catch (error) {
            unlessTold(error);
            if (error.code !== "ENOENT") {
                tellFailure(wireName(path) + wireName(name), error);
            }
        }
    }
}

function sortedNames(path) {
    let entries = [];
    try {
        entries = listFolder(path);
    } catch (error) {
        unlessTold(error);
        if (error.code !== "ENOENT") {
            tellFailure(wireName(path), error);
        }
    }
    const names = entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name));
    return names.sort((one, other) => compare(wireBytes(one), wireBytes(other)));
}

function preview(home, { agentId, sessionId }) {
    const send = findTranscript(home, agentId, sessionId);
    if (send === null) {
        out.record("none");
        return;
    }
    out.record("found");
    const sender = new Sender();
    try {
        send(sender);
    } catch (error) {
        throw error instanceof Rewritten || error instanceof Vanished ? rewrittenMeanwhile() : error;
    } finally {
        sender.flush();
    }
}

function findTranscript(home, agentId, sessionId) {
    let agent;
    try {
        agent = findAgent(home, agentId);
    } catch (error) {
        if (error.code === "ENOENT") {
            return null;
        }
        throw error;
    }
    return new AgentSessions(agent, () => {}).find(sessionId);
}

function tellNames(home, { agentId }) {
    for (const agent of agentId === null ? listAgents(home) : [findAgent(home, agentId)]) {
        out.record("agent", wireName(agent.name));
        Object.keys(KINDS).forEach((folder) => tellNamesIn(agent, folder));
        if (agentId !== null) {
            tellIds(agent);
        }
    }
}

/** The files, and links, that are of a session. */
function tellNamesIn(agent, folder) {
    let entries;
    try {
        entries = listFolder(joined(agent.path, folder));
    } catch (error) {
        unlessTold(error);
        if (error.code !== "ENOENT") {
            out.record("unread", folder, ...told(error));
        }
        return;
    }
    out.record("folder", folder);
    for (const entry of entries) {
        const known = classify(entry.name);
        const isOurs = known !== null && known.role !== "import" && known.role !== "cold";
        if (isOurs && (entry.isFile() || entry.isSymbolicLink())) {
            out.record("name", wireName(entry.name));
        }
    }
}

/** If the database can't be read, nothing is known not to be in it. */
function tellIds(agent) {
    const failures = [];
    const failed = (path, error) => failures.push([path, ...told(error)]);
    const ids = hasDatabase(agent) ? new SqliteStore(agent, failed).ids() : [];
    if (failures.length > 0) {
        out.record("ids-failed", ...failures[0]);
    } else {
        ids.forEach((id) => out.record("id", wireName(id)));
    }
}

// --------------------------------------------------------- deleting, as stores/deletion.py and stores/index_rewrite.py

const INDEX_NAME = "sessions.json";
const LOCK_STALE_MS = 30 * 60 * 1000;
const MAX_LOCK_BYTES = 4 * 1024;
const INDEX_LOCK_WAIT_MS = 5_000;
const INDEX_LOCK_POLL_MS = 25;
const MAX_INDEX_TRIES = 10;
const NEW_FILE_FLAGS = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL;

/** A folder held open: where the system has a path for that, no other can take its place. Errors name what is in it. */
class HeldFolder {
    #path;

    constructor(path) {
        const flags = OPEN_FLAGS | fs.constants.O_DIRECTORY;
        this.fd = system(path, () => fs.openSync(asPath(path), flags));
        const held = `/proc/self/fd/${this.fd}`;
        this.#path = exists(held) ? held : path;
    }

    pathOf(name) {
        return joined(this.#path, name);
    }

    stat(name, { follow = true } = {}) {
        const look = follow ? fs.statSync : fs.lstatSync;
        return system(name, () => look(asPath(this.pathOf(name)), { bigint: true }));
    }

    /** Remove a file, or a link and not what it leads to; false if it has gone already. */
    remove(name) {
        try {
            system(name, () => fs.unlinkSync(asPath(this.pathOf(name))));
            return true;
        } catch (error) {
            if (error.code === "ENOENT") {
                return false;
            }
            throw error;
        }
    }

    /** Open a new file for writing. */
    create(name) {
        return system(name, () => fs.openSync(asPath(this.pathOf(name)), NEW_FILE_FLAGS, 0o600));
    }

    replace(name, by) {
        system(by, () => fs.renameSync(asPath(this.pathOf(by)), asPath(this.pathOf(name))));
        this.sync();
    }

    /** Make what was created, renamed and removed outlast a loss of power, where the file system can. */
    sync() {
        try {
            fs.fsyncSync(this.fd);
        } catch {
            // It can't.
        }
    }

    close() {
        fs.closeSync(this.fd);
    }
}

/** Whether two looks at a name saw the same file with, as far as its times and size tell, the same content. */
function isSameFile(one, other) {
    return ["dev", "ino", "size", "mtimeNs", "ctimeNs"].every((field) => one[field] === other[field]);
}

/** Remove sessions one after another, and then their entries in the index. */
function remove(home, { agentId, sessions }) {
    const agent = findAgent(home, agentId);
    const folders = new Map();
    const gone = new Set();
    for (const [place, [folder, transcript, wasThere, others]] of sessions.entries()) {
        if (isStopAsked()) {
            break;
        }
        const session = { folder, transcript: fileName(transcript), wasThere, others: others.map(fileName) };
        const { name, items, isGone } = removeOne(agent, folders, session);
        out.record(name, place, ...items);
        if (isGone && folder === SESSIONS) {
            gone.add(session.transcript);
        }
    }
    if (gone.size > 0) {
        forgetAll(folders.get(SESSIONS), gone);
    }
    folders.forEach((folder) => folder.close());
}

/** Remove a session's files, the transcript last, unless its lock is live. */
function removeOne(agent, folders, { folder: folderName, transcript, wasThere, others }) {
    let files = 0;
    try {
        const folder = heldFolder(agent, folders, folderName);
        [transcript, ...others].forEach(checkName);
        const owner = liveLock(folder, `${transcript}.lock`);
        if (owner !== null) {
            return { name: "locked", items: [owner], isGone: false };
        }
        for (const name of others) {
            files += Number(folder.remove(name));
        }
        const isGone = wasThere && folder.remove(transcript);
        files += Number(isGone);
        return { name: "removed", items: [files, isGone], isGone };
    } catch (error) {
        unlessTold(error);
        return { name: "refused", items: [files, ...told(error)], isGone: false };
    }
}

function heldFolder(agent, folders, name) {
    if (!Object.hasOwn(KINDS, name)) {
        throw unreadable("not a valid name");
    }
    if (!folders.has(name)) {
        folders.set(name, new HeldFolder(joined(agent.path, name)));
    }
    return folders.get(name);
}

function checkName(name) {
    if (["", ".", ".."].includes(name) || /[/\0]/.test(name)) {
        throw unreadable("not a valid name");
    }
}

/** Who holds a lock file, in words; null if there is none, or a stale one. */
function liveLock(folder, name) {
    let found;
    try {
        found = folder.stat(name, { follow: false });
    } catch (error) {
        if (error.code === "ENOENT" || error.code === "ENAMETOOLONG") {
            return null;
        }
        throw error;
    }
    const pid = lockOwner(folder, name);
    if (pid === null) {
        return Date.now() - Number(found.mtimeMs) < LOCK_STALE_MS ? "process unknown" : null;
    }
    return isRunning(pid) ? `process ${pid}` : null;
}

/** OpenClaw's locks are JSON with a `pid`. One that can't be read may be of a process that is just writing it. */
function lockOwner(folder, name) {
    try {
        const file = openRegular(folder.pathOf(name));
        try {
            const text = new BoundedReader(file.fd, Math.min(file.sizeBytes, MAX_LOCK_BYTES)).readAll().toString();
            const { pid } = JSON.parse(text);
            return Number.isInteger(pid) && pid >= 1 ? pid : null;
        } finally {
            fs.closeSync(file.fd);
        }
    } catch {
        return null;
    }
}

function isRunning(pid) {
    try {
        process.kill(pid, 0);
        return true;
    } catch (error) {
        return error.code === "EPERM"; // else there is none, or no process can have this number
    }
}

function forgetAll(folder, transcripts) {
    // So that a loss of power can't undo the one and keep the other.
    folder.sync();
    try {
        forgetTranscripts(folder, transcripts);
    } catch (error) {
        unlessTold(error);
        out.record("index-failed", ...told(error));
    }
}

/** Take the entries of these transcripts out of the index, if it is there: whole or not at all. */
function forgetTranscripts(folder, transcripts) {
    try {
        folder.stat(INDEX_NAME);
        withIndexLock(folder, () => {
            for (let attempt = 1; attempt <= MAX_INDEX_TRIES; attempt++) {
                if (rewriteIndex(folder, transcripts)) {
                    return;
                }
            }
            throw unreadable(`the session index changed ${MAX_INDEX_TRIES} times while it was rewritten`);
        });
    } catch (error) {
        if (error.code !== "ENOENT") {
            throw error;
        }
    }
}

/** Hold OpenClaw's lock of the index: wait while another holds it, take a stale one over, release only our own. */
function withIndexLock(folder, work) {
    const name = `${INDEX_NAME}.lock`;
    const giveUpAt = Date.now() + INDEX_LOCK_WAIT_MS;
    let fd = tryCreate(folder, name);
    while (fd === null) {
        waitForLock(folder, name, giveUpAt);
        fd = tryCreate(folder, name);
    }
    try {
        fs.writeSync(fd, JSON.stringify({ pid: process.pid, createdAt: new Date().toISOString() }));
        work();
    } finally {
        releaseLock(folder, name, fd);
    }
}

function tryCreate(folder, name) {
    try {
        return folder.create(name);
    } catch (error) {
        if (error.code === "EEXIST") {
            return null;
        }
        throw error;
    }
}

function waitForLock(folder, name, giveUpAt) {
    try {
        const was = folder.stat(name, { follow: false });
        const owner = liveLock(folder, name);
        if (owner === null && isSameFile(was, folder.stat(name, { follow: false }))) {
            folder.remove(name);
        } else if (owner !== null && Date.now() > giveUpAt) {
            throw unreadable(`the session index is locked by ${owner}`);
        } else if (owner !== null) {
            out.tick();
            sleep(INDEX_LOCK_POLL_MS);
        }
    } catch (error) {
        if (error.code !== "ENOENT") {
            throw error;
        }
    }
}

function releaseLock(folder, name, fd) {
    const ours = fs.fstatSync(fd, { bigint: true });
    fs.closeSync(fd);
    try {
        const found = folder.stat(name, { follow: false });
        if (found.dev === ours.dev && found.ino === ours.ino) {
            folder.remove(name);
        }
    } catch (error) {
        if (error.code !== "ENOENT") {
            throw error;
        }
    }
}

/** Rewrite the index once; false if it changed meanwhile, so that it is to be done again. */
function rewriteIndex(folder, transcripts) {
    const file = openRegular(folder.pathOf(INDEX_NAME), INDEX_NAME);
    // It stays open, so that no newer file can be given the number of the one that was read.
    try {
        const was = fs.fstatSync(file.fd, { bigint: true });
        if (file.sizeBytes > MAX_INDEX_PIECE_BYTES) {
            throw brokenIndex("the session index is too large to be rewritten");
        }
        let pieces;
        try {
            const data = system(null, () => fs.readFileSync(file.fd));
            pieces = withoutEntries(data, transcripts);
        } catch (error) {
            if (error instanceof Trouble && !isSameFile(was, folder.stat(INDEX_NAME))) {
                return false;
            }
            throw error;
        }
        return pieces === null || putInPlace(folder, was, pieces);
    } finally {
        fs.closeSync(file.fd);
    }
}

/** The pieces of an index that remain without the entries of these transcripts; null if all of it does. */
function withoutEntries(data, transcripts) {
    const members = membersOf(data);
    const isGone = ({ transcript }) => transcript !== null && transcripts.has(transcript);
    if (!members.some(isGone)) {
        return null;
    }
    const kept = [];
    members.forEach((member, place) => {
        if (!isGone(member)) {
            // With a member goes the comma before it, which the first one that is kept doesn't need.
            const start = kept.length > 0 ? members[place - 1].end : member.start;
            kept.push(data.subarray(start, member.end));
        }
    });
    if (kept.length === 0) {
        return [Buffer.from("{}")];
    }
    return [data.subarray(0, members[0].start), ...kept, data.subarray(members[members.length - 1].end)];
}

const JSON_SPACE = /[ \t\r\n]*/y;
const JSON_STRING = /"[^"\\]*(?:\\.[^"\\]*)*"/y;
const JSON_WORD = /[^ \t\r\n,\]}]+/y;
const JSON_MARK = /["{}[\]]/g;

/** The entries of an index: each one's place in the text, from the key's first quote, and its transcript's name. */
function membersOf(data) {
    // Parsed as a whole first, so that the places can be found by looking at little of it.
    let value = null;
    try {
        value = JSON.parse(data.toString());
    } catch {
        // It is none.
    }
    if (!isObject(value)) {
        throw brokenIndex("the session index is not a JSON object of entries");
    }
    const text = data.toString("latin1");
    const members = [];
    const keys = new Set();
    let place = afterMatch(JSON_SPACE, text, text.indexOf("{") + 1);
    while (text[place] !== "}") {
        const start = place;
        const keyEnd = afterMatch(JSON_STRING, text, start);
        const valueStart = afterMatch(JSON_SPACE, text, text.indexOf(":", keyEnd) + 1);
        const end = afterValue(text, valueStart);
        keys.add(JSON.parse(decoded(text.slice(start, keyEnd))));
        members.push({ start, end, transcript: transcriptOf(JSON.parse(decoded(text.slice(valueStart, end)))) });
        place = afterMatch(JSON_SPACE, text, end);
        place = text[place] === "," ? afterMatch(JSON_SPACE, text, place + 1) : place;
    }
    if (keys.size < members.length) {
        throw brokenIndex("the session index has two entries of one key");
    }
    return members;
}

function afterMatch(pattern, text, place) {
    pattern.lastIndex = place;
    pattern.test(text);
    return pattern.lastIndex;
}

function afterValue(text, start) {
    if (text[start] === '"') {
        return afterMatch(JSON_STRING, text, start);
    }
    if (text[start] !== "{" && text[start] !== "[") {
        return afterMatch(JSON_WORD, text, start);
    }
    let depth = 0;
    let place = start;
    do {
        place = afterMatch(JSON_MARK, text, place);
        const mark = text[place - 1];
        if (mark === '"') {
            place = afterMatch(JSON_STRING, text, place - 1);
        } else {
            depth += mark === "{" || mark === "[" ? 1 : -1;
        }
    } while (depth > 0);
    return place;
}

/** The file name of an entry's transcript, as a byte string; null if it names none. */
function transcriptOf(entry) {
    const { sessionFile, sessionId } = isObject(entry) ? entry : {};
    if (typeof sessionFile === "string" && sessionFile !== "") {
        return encoded(baseName(mended(sessionFile)));
    }
    return typeof sessionId === "string" && sessionId !== "" ? encoded(`${mended(sessionId)}.jsonl`) : null;
}

/** Make `pieces` the index if it is still the one that `was` tells of. */
function putInPlace(folder, was, pieces) {
    // OpenClaw's own way to name such a file, so that what a crash leaves is swept up like its own.
    const name = `${INDEX_NAME}.${process.pid}.${randomUUID()}.tmp`;
    const fd = folder.create(name);
    try {
        try {
            letBelong(fd, was);
            system(null, () => pieces.forEach((piece) => fs.writeFileSync(fd, piece)));
            system(null, () => fs.fsyncSync(fd));
        } finally {
            fs.closeSync(fd);
        }
        if (!isSameFile(was, folder.stat(INDEX_NAME))) {
            return false;
        }
        folder.replace(INDEX_NAME, name);
        return true;
    } finally {
        folder.remove(name);
    }
}

/** Give a new file the mode and, if this process may, the owner of the one that it is to replace. */
function letBelong(fd, was) {
    const now = fs.fstatSync(fd, { bigint: true });
    if (now.uid !== was.uid || now.gid !== was.gid) {
        try {
            fs.fchownSync(fd, Number(was.uid), Number(was.gid));
        } catch (error) {
            if (error.code !== "EPERM") {
                throw error;
            }
        }
    }
    fs.fchmodSync(fd, Number(was.mode & 0o7777n));
}

// --------------------------------------------------------------------------------------------------------- the request

const OPERATIONS = { analyze: analyse, files: tellFiles, preview, names: tellNames, remove };

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
    const abilities = [sqlite !== undefined, hasZstd];
    const hello = (shown) => out.record("hello", "node", process.versions.node, nowMs, shown, ...abilities);
    let home;
    try {
        home = openclawDir(request);
    } catch (error) {
        hello(null);
        throw error;
    }
    hello(wireName(home));
    out.flush();
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
