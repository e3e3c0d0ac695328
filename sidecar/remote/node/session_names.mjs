// What a file is, by its name alone: the twin of sidecar/stores/session_names.py.

import { wireName } from "./text.mjs";

export const SESSIONS = "sessions";
export const IMPORTS = "session-sqlite-import-archive";
export const KINDS = { sessions: "sessions", sessions_archive: "archive" };
export const ALL_FOLDERS = [...Object.keys(KINDS), IMPORTS];

export const INDEX_NAME = "sessions.json";
export const SUFFIX = ".jsonl";

const HEX_GROUPS = [8, 4, 4, 4, 12].map((digits) => `[0-9a-f]{${digits}}`).join("-");
const CHECKPOINT = new RegExp(`^(.+)\\.checkpoint\\.${HEX_GROUPS}$`, "s");
const TIMESTAMP = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}(?:\\.[0-9]{3})?Z";
const ARCHIVE = new RegExp(`^(.+)\\.jsonl\\.(reset|deleted)\\.${TIMESTAMP}((?:\\.[0-9a-f]{32})?\\.zst)?$`, "s");
const IMPORT = /^(.+)\.jsonl\.imported-[0-9]+(?:\.[0-9]+)?$/s;

export function without(text, suffix) {
    return text.endsWith(suffix) ? text.slice(0, -suffix.length) : text;
}

/** What a file of this name is, as `{ role, stem, archivedAs }`; null if it is nothing of a session. */
export function classify(name) {
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

export function isTranscript(name) {
    return name.endsWith(SUFFIX) && isSession(without(name, SUFFIX));
}

/** Whether a file that is no live transcript is a session nevertheless, where it lies. */
export function isArchive({ role }, folder) {
    if (folder === IMPORTS) {
        return role === "import";
    }
    return role === "archive" || (role === "transcript" && folder !== SESSIONS);
}

/** The id under which an index knows a transcript: topics share the one of the session that they belong to. */
export function indexedId(stem) {
    return wireName(stem.split("-topic-", 1)[0]);
}
