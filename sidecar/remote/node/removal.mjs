// Remove the files of sessions, then their entries in the index: the twin of `_Deletion` in sidecar/stores/deletion.py.

import { told, unlessTold, unreadable } from "./errors.mjs";
import { forgetTranscripts } from "./index_rewrite.mjs";
import { findAgent } from "./locations.mjs";
import { out } from "./output.mjs";
import { HeldFolder, liveLock } from "./session_folders.mjs";
import { KINDS, SESSIONS } from "./session_names.mjs";
import { fileName, joined } from "./text.mjs";
import { isStopAsked } from "./watchdog.mjs";

/** Remove sessions one after another, and then their entries in the index. */
export function remove(home, { agentId, sessions }) {
    const agent = findAgent(home, agentId);
    const folders = new Map();
    const gone = new Set();
    for (const [place, [folder, transcript, wasThere, others]] of sessions.entries()) {
        if (isStopAsked()) {
            break;
        }
        const session = { folder, transcript: fileName(transcript), wasThere, others: others.map(fileName) };
        const { name, items, isGone } = removeOne(agent, folders, session);
        out.record(name, place, ...items);
        if (isGone && folder === SESSIONS) {
            gone.add(session.transcript);
        }
    }
    if (gone.size > 0) {
        forgetAll(folders.get(SESSIONS), gone);
    }
    folders.forEach((folder) => folder.close());
}

/** Remove a session's files, the transcript last, unless its lock is live. */
function removeOne(agent, folders, { folder: folderName, transcript, wasThere, others }) {
    let files = 0;
    try {
        const folder = heldFolder(agent, folders, folderName);
        [transcript, ...others].forEach(checkName);
        const owner = liveLock(folder, `${transcript}.lock`);
        if (owner !== null) {
            return { name: "locked", items: [owner], isGone: false };
        }
        for (const name of others) {
            files += Number(folder.remove(name));
        }
        const isGone = wasThere && folder.remove(transcript);
        files += Number(isGone);
        return { name: "removed", items: [files, isGone], isGone };
    } catch (error) {
        unlessTold(error);
        return { name: "refused", items: [files, ...told(error)], isGone: false };
    }
}

function heldFolder(agent, folders, name) {
    if (!Object.hasOwn(KINDS, name)) {
        throw unreadable("not a valid name");
    }
    if (!folders.has(name)) {
        folders.set(name, new HeldFolder(joined(agent.path, name)));
    }
    return folders.get(name);
}

function checkName(name) {
    if (["", ".", ".."].includes(name) || /[/\0]/.test(name)) {
        throw unreadable("not a valid name");
    }
}

function forgetAll(folder, transcripts) {
    // So that a loss of power can't undo the one and keep the other.
    folder.sync();
    try {
        forgetTranscripts(folder, transcripts);
    } catch (error) {
        unlessTold(error);
        out.record("index-failed", ...told(error));
    }
}
