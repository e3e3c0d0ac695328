// What can be asked for, by name. What a home is asked here, sidecar/stores/home.py is asked there.

import { AgentSessions, hasDatabase } from "./agent.mjs";
import { Rewritten, rewrittenMeanwhile, told, unlessTold, Vanished } from "./errors.mjs";
import { listFolder } from "./files.mjs";
import { tellFiles } from "./listing.mjs";
import { findAgent, listAgents } from "./locations.mjs";
import { out, tellFailure } from "./output.mjs";
import { Sender } from "./preview.mjs";
import { remove } from "./removal.mjs";
import { classify, KINDS } from "./session_names.mjs";
import { SqliteStore } from "./sqlite_store.mjs";
import { joined, wireName } from "./text.mjs";

function analyse(home) {
    listAgents(home).forEach((agent) => new AgentSessions(agent, tellFailure).analyse());
}

function preview(home, { agentId, sessionId }) {
    const send = findTranscript(home, agentId, sessionId);
    if (send === null) {
        out.record("none");
        return;
    }
    out.record("found");
    const sender = new Sender();
    try {
        send(sender);
    } catch (error) {
        throw error instanceof Rewritten || error instanceof Vanished ? rewrittenMeanwhile() : error;
    } finally {
        sender.flush();
    }
}

function findTranscript(home, agentId, sessionId) {
    let agent;
    try {
        agent = findAgent(home, agentId);
    } catch (error) {
        if (error.code === "ENOENT") {
            return null;
        }
        throw error;
    }
    return new AgentSessions(agent, () => {}).find(sessionId);
}

function tellNames(home, { agentId }) {
    for (const agent of agentId === null ? listAgents(home) : [findAgent(home, agentId)]) {
        out.record("agent", wireName(agent.name));
        Object.keys(KINDS).forEach((folder) => tellNamesIn(agent, folder));
        if (agentId !== null) {
            tellIds(agent);
        }
    }
}

/** The files, and links, that are of a session. */
function tellNamesIn(agent, folder) {
    let entries;
    try {
        entries = listFolder(joined(agent.path, folder));
    } catch (error) {
        unlessTold(error);
        if (error.code !== "ENOENT") {
            out.record("unread", folder, ...told(error));
        }
        return;
    }
    out.record("folder", folder);
    for (const entry of entries) {
        const known = classify(entry.name);
        const isOurs = known !== null && known.role !== "import" && known.role !== "cold";
        if (isOurs && (entry.isFile() || entry.isSymbolicLink())) {
            out.record("name", wireName(entry.name));
        }
    }
}

/** If the database can't be read, nothing is known not to be in it. */
function tellIds(agent) {
    const failures = [];
    const failed = (path, error) => failures.push([path, ...told(error)]);
    const ids = hasDatabase(agent) ? new SqliteStore(agent, failed).ids() : [];
    if (failures.length > 0) {
        out.record("ids-failed", ...failures[0]);
    } else {
        ids.forEach((id) => out.record("id", wireName(id)));
    }
}

/** What is told that its input has ended, and then given REMOVAL_ENDS_WITHIN_MS to leave things as they should be. */
export const FINISHING = new Set(["remove"]);
/** Whether it then says how it ended. */
export const SAYS_HOW_IT_ENDED = false;
export const OPERATIONS = { analyze: analyse, files: tellFiles, preview, names: tellNames, remove };
