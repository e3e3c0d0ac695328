// What lies in the session folders and databases: the twin of sidecar/stores/listing.py.

import fs from "node:fs";

import { hasDatabase } from "./agent.mjs";
import { system, unlessTold } from "./errors.mjs";
import { listFolder } from "./files.mjs";
import { listAgents } from "./locations.mjs";
import { out, tellFailure } from "./output.mjs";
import { KINDS } from "./session_names.mjs";
import { SqliteStore } from "./sqlite_store.mjs";
import { asPath, compare, joined, wireBytes, wireName } from "./text.mjs";

/** What lies in the session folders and databases, sorted by path. */
export function tellFiles(home) {
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
