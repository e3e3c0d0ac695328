// The entries of a transcript, and their counts: the twin of sidecar/core/transcript.py.

import { MAX_TEXT_CHARS, MAX_TIMESTAMP_CHARS } from "./limits.mjs";
import { firstCharacters, hasAtMost, isObject, mended, NOT_BLANK, parse } from "./text.mjs";

/** The counts of one transcript, in the words of `sidecar/core/transcript.py`. */
export class Tally {
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

export class OwnEntry extends Error {}

/** The id of the entry on a line, if it isn't blank or a header, in a list. */
export function ownId(line) {
    if (!NOT_BLANK.test(line)) {
        return [];
    }
    let entry;
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
