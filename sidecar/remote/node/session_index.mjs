// What `sessions.json` says of sessions: the twin of sidecar/stores/session_index.py.

import fs from "node:fs";

import { RecordBlocks } from "./blocks.mjs";
import { Trouble } from "./errors.mjs";
import { BoundedReader, openRegular } from "./files.mjs";
import { MAX_INDEX_PIECE_BYTES, MAX_MODELS } from "./limits.mjs";
import { isObject, mended } from "./text.mjs";

const MEMBER_END = "\n  },\n";
const NO_MEMBER = /^\{[ \t\n\r\f\v]*\}[ \t\n\r\f\v]*$/;
const END_OF_WHOLE_NUMBERS = 2n ** 62n;

// Numbers that a double can't hold, and counts that are spelled as fractions, which count as absent.
const COUNT_IN_DOUBT = /"(?:totalTokens|updatedAt)"[ \t\r\n]*:[ \t\r\n]*-?[0-9]*(?:[.eE]|[0-9]{16})/;
const ABSENT = Object.freeze({ updatedAt: 0, totalTokens: 0, model: null });

export const brokenIndex = (message) => new Trouble("broken_index", message);

/** What an index says of the sessions that it was asked to remember. */
export class SessionIndex {
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
export function decodeMembers(text) {
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
export function readIndex(path, index) {
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
