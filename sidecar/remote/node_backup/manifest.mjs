// The manifest of a snapshot, written and read line by line: the twin of sidecar/backup/manifest.py.

import crypto from "node:crypto";
import fs from "node:fs";

import { isTold, system, Trouble } from "./errors.mjs";
import { MANIFEST_TAIL_BYTES, MAX_REPORTED_FAILURES } from "./backup_limits.mjs";
import { jsonLine, LineReader, LineWriter, parseLine } from "./json_lines.mjs";
import { MAX_TEXT_CHARS } from "./limits.mjs";
import { asPath, encoded, fileName, firstCharacters, LF, wireName } from "./text.mjs";

const FORMAT = 1;

export const damaged = (message, details) => new Trouble("backup_damaged", message, details);
export const statusOfFoot = (foot) => (foot.failedItems > 0 ? "incomplete" : "complete");

/**
 * A line of a manifest; which fields count depends on `kind`.
 *
 * `path` and nothing else is a byte string; `modifiedAtNs` and the numbers of `source` are BigInts; `text` is as in the
 * line: of a link its target, why it was left out, how it failed, of a file what is wrong with it.
 */
export function entryOf(kind, path, given = {}) {
    const rest = { mode: 0, modifiedAtNs: 0n, sizeBytes: 0, sha256: "", text: "", owner: null, isDatabase: false };
    return { kind, path, ...rest, source: null, ...given };
}

/** Whether two entries are the same, but for what tells of their sources. */
export function isSameEntry(one, other) {
    return String(lineOf(one, { source: null })) === String(lineOf(other, { source: null }));
}

const lineOf = (entry, given) => jsonLine(fieldsOf({ ...entry, ...given }, entry.text));

function fieldsOf(entry, text) {
    const fields = { [entry.kind]: wireName(entry.path) };
    if (entry.kind === "failed") {
        fields.error = text;
    } else if (entry.kind === "leftOut") {
        fields.reason = text;
    } else if (entry.kind === "link") {
        fields.target = text;
    } else {
        fields.mode = entry.mode.toString(8).padStart(4, "0");
        fields.mtimeNs = entry.modifiedAtNs;
    }
    if (entry.kind === "file") {
        fields.sizeBytes = entry.sizeBytes;
        fields.sha256 = entry.sha256;
        if (text !== "") {
            fields.problem = text;
        }
    }
    if (entry.isDatabase) {
        fields.database = true;
    }
    if (entry.owner !== null) {
        fields.owner = entry.owner;
    }
    if (entry.source !== null) {
        fields.from = entry.source;
    }
    return fields;
}

const isFailure = ({ kind, text }) => kind === "failed" || (kind === "file" && text !== "");

/** Count an entry in what a foot says. */
function countIn(foot, entry) {
    foot.files += Number(entry.kind === "file");
    foot.sizeBytes += entry.sizeBytes;
    foot.failedItems += Number(isFailure(entry));
}

/** Writes a manifest to an open file and counts what goes in. */
export class ManifestWriter {
    #lines;
    #digest = crypto.createHash("sha256");
    #foot = { files: 0, sizeBytes: 0, failedItems: 0, failures: [] };
    #failuresBytes = 0;

    constructor(fd, { createdAt, source, includeSessions }) {
        this.#lines = new LineWriter(fd);
        this.#write(jsonLine({ manifest: FORMAT, createdAt, source, includeSessions }));
    }

    add(entry) {
        let { text } = entry;
        if (isFailure(entry)) {
            text = firstCharacters(text, MAX_TEXT_CHARS);
            this.#noteFailure({ path: wireName(entry.path), error: text });
        }
        countIn(this.#foot, entry);
        this.#write(jsonLine(fieldsOf(entry, text)));
    }

    #noteFailure(failure) {
        const { failures } = this.#foot;
        const size = jsonLine(failure).length;
        // The longest paths are so long that twenty of them are more than the foot may be.
        if (failures.length < MAX_REPORTED_FAILURES && this.#failuresBytes + size <= MANIFEST_TAIL_BYTES / 2) {
            failures.push(failure);
            this.#failuresBytes += size;
        }
    }

    /** Add the foot. Closing the file is the caller's. */
    close() {
        const foot = this.#foot;
        this.#write(jsonLine({ status: statusOfFoot(foot), ...foot, sha256: this.#digest.copy().digest("hex") }));
        this.#lines.flush();
        return foot;
    }

    #write(line) {
        this.#digest.update(line);
        this.#lines.write(line);
    }
}

/** The manifest at `path`: its `head`, its entries one after another. Close it afterwards. */
export class ManifestReader {
    #lines;
    #digest = crypto.createHash("sha256");

    constructor(path) {
        this.#lines = new LineReader(path);
        try {
            this.head = asManifest(() => {
                const line = this.#line();
                const { manifest, ...head } = parseLine(line);
                if (manifest !== FORMAT) {
                    throw damaged("the manifest is of a form that is not known");
                }
                this.#digest.update(line);
                return { ...head, createdAt: textOf(head.createdAt) };
            });
        } catch (error) {
            this.close();
            throw error;
        }
    }

    /** Each entry in order. Throws at the end, if not all that was written was read. */
    *entries() {
        const counted = { files: 0, sizeBytes: 0, failedItems: 0 };
        for (;;) {
            const line = this.#line();
            const fields = asManifest(() => parseLine(line));
            if (Object.hasOwn(fields, "status")) {
                const foot = asManifest(() => parsedFoot(fields));
                const isCounted = Object.keys(counted).every((name) => counted[name] === foot[name]);
                const isWhole = fields.sha256 === this.#digest.digest("hex") && this.#lines.next().length === 0;
                if (!isCounted || fields.status !== statusOfFoot(foot) || !isWhole) {
                    throw damaged("the manifest isn't as it was written");
                }
                return;
            }
            this.#digest.update(line);
            const entry = asManifest(() => parsedEntry(fields));
            countIn(counted, entry);
            yield entry;
        }
    }

    close() {
        this.#lines.close();
    }

    #line() {
        const line = this.#lines.next();
        if (line.at(-1) !== LF) {
            throw damaged("the manifest has no end");
        }
        return line;
    }
}

/** The first and the last line of the manifest at `path`. */
export function manifestEnds(path) {
    const reader = new ManifestReader(path);
    try {
        return { head: reader.head, foot: asManifest(() => parsedFoot(parseLine(lastLine(path)))) };
    } finally {
        reader.close();
    }
}

function lastLine(path) {
    const fd = system(path, () => fs.openSync(asPath(path), "r"));
    try {
        const size = system(path, () => fs.fstatSync(fd)).size;
        const tail = Buffer.alloc(Math.min(size, MANIFEST_TAIL_BYTES));
        system(path, () => fs.readSync(fd, tail, 0, tail.length, size - tail.length));
        if (tail.at(-1) !== LF) {
            throw damaged("the manifest has no end");
        }
        return tail.subarray(tail.subarray(0, -1).lastIndexOf(LF) + 1);
    } finally {
        fs.closeSync(fd);
    }
}

/** What `parse` makes of a line; where that fails, it was no line of a manifest. */
function asManifest(parse) {
    try {
        return parse();
    } catch (error) {
        throw isTold(error) ? error : damaged(`the manifest can't be read: ${encoded(error.message)}`);
    }
}

function textOf(value) {
    if (typeof value !== "string") {
        throw new TypeError("a text is missing");
    }
    return value;
}

function wholeOf(value) {
    if (!Number.isSafeInteger(value)) {
        throw new TypeError("a whole number is missing");
    }
    return value;
}

function parsedFoot(fields) {
    const failures = fields.failures.map(({ path, error }) => ({ path: textOf(path), error: textOf(error) }));
    const [files, sizeBytes, failedItems] = [fields.files, fields.sizeBytes, fields.failedItems].map(wholeOf);
    return { files, sizeBytes, failedItems, failures };
}

/** `path`, which leads nowhere but below the top: a manifest is a file that anything may have written. */
function checkedPath(path) {
    const isOutside = (name) => name === "" || name === "." || name === "..";
    if (path !== "" && (path.includes("\0") || path.split("/").some(isOutside))) {
        throw damaged("the manifest has a path that leads out of the tree");
    }
    return path;
}

function parsedEntry(fields) {
    const [kind] = Object.keys(fields);
    const path = checkedPath(fileName(textOf(fields[kind])));
    const owner = fields.owner ? [wholeOf(fields.owner[0]), wholeOf(fields.owner[1])] : null;
    const text = { link: "target", leftOut: "reason", failed: "error" }[kind];
    if (text !== undefined) {
        return entryOf(kind, path, { text: textOf(fields[text]), owner });
    }
    if (kind !== "dir" && kind !== "file") {
        throw damaged(`the manifest has a line of a kind that is not known: ${encoded(kind)}`);
    }
    const status = { mode: wholeOf(parseInt(textOf(fields.mode), 8)), modifiedAtNs: BigInt(fields.mtimeNs), owner };
    if (kind === "dir") {
        return entryOf(kind, path, status);
    }
    return entryOf(kind, path, {
        ...status,
        sizeBytes: wholeOf(fields.sizeBytes),
        sha256: textOf(fields.sha256),
        text: fields.problem ?? "",
        isDatabase: Boolean(fields.database),
        source: fields.from ? fields.from.map(BigInt) : null,
    });
}
