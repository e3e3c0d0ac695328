// Names of snapshots: the twin of sidecar/backup/names.py.

import { Trouble, unreadable } from "./errors.mjs";
import { MAX_NAME_BYTES, MAX_SNAPSHOTS_A_SECOND } from "./backup_limits.mjs";
import { fileName } from "./text.mjs";

export const MANIFEST_SUFFIX = ".manifest.jsonl";
const STAMPED = /^(\d{4})-(\d\d)-(\d\d)_(\d\d)(\d\d)(\d\d)(?:-\d+)?$/;

/** The file name of the snapshot of this wire name, if that is a plain name of a folder. */
export function checkedName(name) {
    if (name === "" || name.startsWith(".") || /[/\\\0]/.test(name)) {
        throw new Trouble("invalid_params", "backupName: not a valid name");
    }
    const plain = fileName(name);
    if (plain.length + MANIFEST_SUFFIX.length > MAX_NAME_BYTES) {
        throw new Trouble("invalid_params", "backupName: the name is too long");
    }
    return plain;
}

/** The names that a snapshot made at this time may have, the one to try first first; throws behind the last. */
export function* namesFor(createdAtMs) {
    const stamp = rfc3339(createdAtMs).replace("T", "_").replace(/[:Z]/g, "");
    yield stamp;
    for (let number = 2; number <= MAX_SNAPSHOTS_A_SECOND; number++) {
        yield `${stamp}-${number}`;
    }
    throw unreadable(`this second has ${MAX_SNAPSHOTS_A_SECOND} snapshots already; try again`);
}

/** The time, RFC 3339, that a name tells; null if it tells none. */
export function createdAtOf(name) {
    const [, year, month, day, hour, minute, second] = STAMPED.exec(name) ?? [];
    return year === undefined ? null : `${year}-${month}-${day}T${hour}:${minute}:${second}Z`;
}

export const rfc3339 = (ms) => `${new Date(ms).toISOString().slice(0, 19)}Z`;
