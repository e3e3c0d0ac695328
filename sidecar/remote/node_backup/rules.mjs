// What goes into a snapshot: the twin of sidecar/backup/rules.py, which explains it.

import { compare } from "./text.mjs";
import { ifPossible, statusThrough } from "./system_words.mjs";

const PHASES = ["config", "agents", "memory"];

/** Where a restore stages files and keeps its journal, at the top of the tree that it restores. */
export const RESTORE_FOLDER = ".clawpal-restore";

const LEFT_OUT = [
    ["cache", "made anew by OpenClaw, Control UI assets among it"],
    ["control-ui", "made anew by OpenClaw"],
    ["tmp", "of running processes"],
    ["logs", "nothing that a restore needs"],
    ["plugin-skills", "links that OpenClaw makes anew"],
    ["agents/*/sessions/*.jsonl.lock", "lock of a running process"],
    ["agents/*/sessions/sessions.json.lock", "lock of a running process"],
    ["agents/*/sessions/sessions.json.lock", "lock of a running process"],
    ["agents/*/sessions/sessions.json.*.tmp", "half-written"],
    ["agents/*/sessions/.usage-cost-cache*.tmp", "half-written"],
    ["agents/*/agent/openclaw-agent.sqlite.generation-lock.sqlite*", "lock of a running process"],
    ["agents/*/agent/openclaw-agent.sqlite.generation-writer.sqlite*", "lock of a running process"],
    ["agents/*/agent/openclaw-agent.sqlite.reindex-lock.sqlite*", "lock of a running process"],
    ["agents/*/agent/openclaw-agent.sqlite.memory-reindex-*", "left over from indexing"],
    [RESTORE_FOLDER, "of a restore by the sidecar"],
];
const TRANSCRIPTS = [
    ["agents/*/sessions/*.jsonl*", "a JSONL transcript (includeSessions: false)"],
    ["agents/*/sessions_archive/*.jsonl*", "a JSONL transcript (includeSessions: false)"],
];

const DATABASE_NAME = /\.(?:sqlite|sqlite3|db)$/;
const SIDE_ENDINGS = ["-wal", "-shm", "-journal"];
export const DATABASE_MAGIC = "SQLite format 3\0";

/** The rules, as they hold for one tree. */
export class Selection {
    #rules;
    #clawpal;

    constructor(includeSessions, clawpalDir) {
        const rules = includeSessions ? LEFT_OUT : [...LEFT_OUT, ...TRANSCRIPTS];
        this.#rules = rules.map(([path, reason]) => [pathPattern(path), reason]);
        this.#clawpal = ifPossible(() => statusThrough(clawpalDir));
    }

    /** Why what lies at `path`, relative to the top, stays out; null if it goes in. */
    reasonToLeaveOut(path, status) {
        if (this.#clawpal !== null && isSameFile(this.#clawpal, status)) {
            return "ClawPal's own directory";
        }
        return this.#rules.find(([pattern]) => pattern.test(path))?.[1] ?? null;
    }
}

export const isSameFile = (one, other) => one.dev === other.dev && one.ino === other.ino;

/** The phase in which what lies at `path` is copied. */
export function phaseOf(path) {
    const [top] = path.split("/", 1);
    return top === "agents" || top === "memory" ? top : "config";
}

/** As `order_of` there sorts: phases, then folders before what is in them, names by their bytes. */
export function compareOrder(one, other) {
    const phases = PHASES.indexOf(phaseOf(one)) - PHASES.indexOf(phaseOf(other));
    if (phases !== 0 || one === other) {
        return phases;
    }
    const [names, others] = [one.split("/"), other.split("/")];
    const place = names.findIndex((name, index) => name !== others[index]);
    if (place < 0) {
        return -1;
    }
    return place < others.length ? compare(names[place], others[place]) : 1;
}

/** The names at the top of a tree that are of one phase after the other. */
export function* byPhase(names) {
    for (const phase of PHASES) {
        for (const name of names()) {
            if (phaseOf(name) === phase) {
                yield name;
            }
        }
    }
}

export const isDatabaseName = (path) => DATABASE_NAME.test(path);

/** The database that `path` would belong to as its `-wal`, `-shm` or `-journal`; else null. */
export function databaseBeside(path) {
    const ending = SIDE_ENDINGS.find((each) => path.endsWith(each));
    return ending === undefined ? null : path.slice(0, -ending.length);
}

export const sideFiles = (path) => SIDE_ENDINGS.map((ending) => path + ending);

function pathPattern(path) {
    const parts = path.split("*").map((part) => part.replace(/[.-]/g, "\\$&"));
    return new RegExp(`^${parts.join("[^/]*")}$`);
}
