// The sessions of an agent that are files: the twin of sidecar/stores/jsonl.py.

import fs from "node:fs";

import { eachLine, RecordBlocks } from "./blocks.mjs";
import { system, SystemError, unlessTold } from "./errors.mjs";
import { BoundedReader, isThere, listFolder, mayBeFile, openFolder, openRegular } from "./files.mjs";
import { MAX_REREADS } from "./limits.mjs";
import { out } from "./output.mjs";
import { readIndex, SessionIndex } from "./session_index.mjs";
import {
    ALL_FOLDERS,
    classify,
    IMPORTS,
    INDEX_NAME,
    indexedId,
    isArchive,
    isTranscript,
    SESSIONS,
    SUFFIX,
    without,
} from "./session_names.mjs";
import { Counter, tellSession } from "./session_record.mjs";
import { byName, compare, fileName, joined, wireName } from "./text.mjs";
import { OwnEntry, ownId } from "./transcript.mjs";
import { sendCompressed } from "./zstd.mjs";

/** The transcripts and archives of one agent that are files; `database` knows which of them are copies. */
export class JsonlStore {
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
                fs.closeSync(openFolder(path));
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
        const path = joined(joined(this.#agent.path, SESSIONS), INDEX_NAME);
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

/** Whether an imported file's session is in the database. The name has a key before the id, which may have dots. */
function isImportOf({ folder, stem }, database) {
    const isKnown = (_, at) => stem[at] === "." && database.has(stem.slice(at + 1));
    return folder === IMPORTS && Array.from(stem).some(isKnown);
}
