// A worker for what blocks, or waits for events, longer than a cancel may wait. In sidecar nothing is like it.
//
// The main thread asks it for one thing at a time and meanwhile looks at its progress every few milliseconds.

import threads from "node:worker_threads";

import { ASIDE_ENDS_WITHIN_MS, ASIDE_LOOK_MS, DATABASE_PAGES_A_STEP } from "./backup_limits.mjs";
import { CACHE_KIB } from "./limits.mjs";
import { leftWork, sleep } from "./watchdog.mjs";

// Places in memory that the worker shares: whether it is at work, whether it is to stop, and how far a copy has come.
const IS_AT_WORK = 0;
const IS_TO_STOP = 1;
const PAGES_LEFT = 2;
const PAGES_TOTAL = 3;
const PAGE_BYTES = 4;
const counts = new Int32Array(new SharedArrayBuffer(5 * Int32Array.BYTES_PER_ELEMENT));

/** Runs in the worker, by its text alone: nothing from outside it but what it is given. */
function workAside() {
    const { spawnSync } = require("node:child_process");
    const { workerData } = require("node:worker_threads");
    const { counts, place, port, pagesAStep, cacheKib } = workerData;

    function opened(uri, readOnly) {
        const { DatabaseSync } = require("node:sqlite");
        const database = new DatabaseSync(uri, { readOnly });
        database.exec(`PRAGMA cache_size = -${cacheKib}`);
        return database;
    }

    /** SQLite's backup, within one read transaction: else it would begin anew whenever somebody writes. */
    async function copyPages({ source, readOnly, target }) {
        const database = opened(source, readOnly);
        try {
            database.exec("BEGIN");
            database.prepare("SELECT count(*) FROM sqlite_master").get();
            Atomics.store(counts, place.PAGE_BYTES, database.prepare("PRAGMA page_size").get().page_size);
            const progress = ({ totalPages, remainingPages }) => {
                Atomics.store(counts, place.PAGES_TOTAL, totalPages);
                Atomics.store(counts, place.PAGES_LEFT, remainingPages);
                if (Atomics.load(counts, place.IS_TO_STOP) === 1) {
                    throw new Error("stopped");
                }
            };
            await require("node:sqlite").backup(database, target, { rate: pagesAStep, progress });
        } finally {
            database.close();
        }
    }

    function check({ uri }) {
        const database = opened(uri, true);
        try {
            // Against a file that was made to harm.
            database.exec("PRAGMA trusted_schema = OFF");
            return Object.values(database.prepare("PRAGMA quick_check(1)").get())[0];
        } finally {
            database.close();
        }
    }

    /** One sync of a whole file system, where there is a program for it: whether it was done. */
    function syncFileSystem({ fd }) {
        const sync = spawnSync("sync", ["-f", "/dev/fd/3"], { stdio: ["ignore", "ignore", "ignore", fd] });
        return sync.status === 0;
    }

    const tasks = { copyPages, check, syncFileSystem };
    port.on("message", async ({ name, given }) => {
        let told;
        try {
            told = { value: await tasks[name](given) };
        } catch ({ message, errcode }) {
            told = { error: { message, code: errcode === undefined ? null : errcode & 0xff } };
        }
        port.postMessage(told);
        Atomics.store(counts, place.IS_AT_WORK, 0);
        Atomics.notify(counts, place.IS_AT_WORK);
    });
}

let port = null;

function startAside() {
    const { port1: ours, port2: theirs } = new threads.MessageChannel();
    const place = { IS_AT_WORK, IS_TO_STOP, PAGES_LEFT, PAGES_TOTAL, PAGE_BYTES };
    const workerData = { counts, place, port: theirs, pagesAStep: DATABASE_PAGES_A_STEP, cacheKib: CACHE_KIB };
    new threads.Worker(`(${workAside})()`, { eval: true, workerData, transferList: [theirs] }).unref();
    ours.unref();
    return ours;
}

/**
 * What the worker makes of a task, `{ value }` or `{ error: { message, code } }` with an error's code of SQLite's.
 *
 * `look` is called every few milliseconds with the bytes that a copy has come to; where it throws, the task is to stop.
 */
export function doAside(name, given, look) {
    port ??= startAside();
    [IS_TO_STOP, PAGES_LEFT, PAGES_TOTAL, PAGE_BYTES].forEach((place) => Atomics.store(counts, place, 0));
    Atomics.store(counts, IS_AT_WORK, 1);
    port.postMessage({ name, given });
    try {
        while (Atomics.wait(counts, IS_AT_WORK, 1, ASIDE_LOOK_MS) === "timed-out") {
            const [left, total, pageBytes] = [PAGES_LEFT, PAGES_TOTAL, PAGE_BYTES].map((at) => counts[at]);
            look((total - left) * pageBytes);
        }
    } catch (error) {
        stopAside();
        throw error;
    }
    return threads.receiveMessageOnPort(port).message;
}

/** Have it stop, as far as it can. */
function stopAside() {
    Atomics.store(counts, IS_TO_STOP, 1);
    leftWork.isThere = Atomics.wait(counts, IS_AT_WORK, 1, ASIDE_ENDS_WITHIN_MS) === "timed-out";
    if (!leftWork.isThere) {
        threads.receiveMessageOnPort(port);
    }
}

/** Wait, and look every now and then. */
export function waitAWhile(ms, look) {
    look();
    sleep(ms);
}
