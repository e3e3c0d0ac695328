// Where OpenClaw's files lie, and which agents there are: the twin of sidecar/stores/locations.py.

import fs from "node:fs";
import process from "node:process";

import { SystemError, Trouble } from "./errors.mjs";
import { exists, listFolder } from "./files.mjs";
import { asPath, byName, encoded, fileName, joined, wireName } from "./text.mjs";

const environOf = (env) => Object.fromEntries(Object.entries(env).map(([name, value]) => [name, fileName(value)]));

/** The ClawPal directory, absolute, from a request. */
export function findClawpalDir({ clawpalDir, env }) {
    const environ = environOf(env);
    return expanded((clawpalDir && fileName(clawpalDir)) || environ.CLAWPAL_DATA_DIR || "~/.clawpal", environ);
}

/** The OpenClaw directory, absolute, from a request. */
export function openclawDir({ openclawHome, env }) {
    const environ = environOf(env);
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
export function listAgents(home) {
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

export function findAgent(home, agentId) {
    const found = listAgents(home).find(({ name }) => wireName(name) === agentId);
    if (found === undefined) {
        throw new SystemError("ENOENT", fileName(`agents/${agentId}`));
    }
    return found;
}
