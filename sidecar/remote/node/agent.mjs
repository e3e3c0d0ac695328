// All sessions of one agent, of files and database: the twin of sidecar/stores/agent.py.

import fs from "node:fs";

import { system, unlessTold } from "./errors.mjs";
import { exists } from "./files.mjs";
import { JsonlStore } from "./jsonl_store.mjs";
import { out } from "./output.mjs";
import { sqlite } from "./sqlite_open.mjs";
import { DATABASE, SqliteStore } from "./sqlite_store.mjs";
import { asPath, joined, wireName } from "./text.mjs";

export function hasDatabase({ path }) {
    return exists(joined(path, DATABASE));
}

/** The stores of one agent. Files come first, then what is in the database alone. */
export class AgentSessions {
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
