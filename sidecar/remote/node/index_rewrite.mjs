// Take entries out of `sessions.json`, whole or not at all: the twin of sidecar/stores/index_rewrite.py.

import { randomUUID } from "node:crypto";
import fs from "node:fs";
import process from "node:process";

import { system, Trouble, unreadable } from "./errors.mjs";
import { openRegular } from "./files.mjs";
import { INDEX_LOCK_POLL_MS, INDEX_LOCK_WAIT_MS, MAX_INDEX_PIECE_BYTES, MAX_INDEX_TRIES } from "./limits.mjs";
import { out } from "./output.mjs";
import { isSameFile, liveLock } from "./session_folders.mjs";
import { brokenIndex } from "./session_index.mjs";
import { INDEX_NAME } from "./session_names.mjs";
import { baseName, decoded, encoded, isObject, mended } from "./text.mjs";
import { sleep } from "./watchdog.mjs";

/** Take the entries of these transcripts out of the index, if it is there: whole or not at all. */
export function forgetTranscripts(folder, transcripts) {
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
