// The worker that has stdin, and how the process ends. In sidecar nothing is like it.
//
// The main thread never waits for an event, so it is the worker that ends the process with its lease, and says that we
// live when nothing else does. They share a few numbers in memory.

import fs from "node:fs";
import process from "node:process";
import { Worker } from "node:worker_threads";

import { system } from "./errors.mjs";
import { BEAT_MS, FINISH_MS, LEASE_MS, LOOK_MS, REMOVAL_ENDS_WITHIN_MS, RETRY_MS } from "./limits.mjs";
import { encoded } from "./text.mjs";

// Places in memory that the worker shares: who is writing, when the last write ended, and what is asked or over.
export const WRITING = 0;
export const WRITTEN_AT = 1;
const STOP = 2;
export const DONE = 3;
export const INPUT_ENDED = 4;
const ENDING = 5;
// How many of the messages that the worker was sent it has written.
export const WRITTEN = 6;
const LOST = 7;
export const shared = new Int32Array(new SharedArrayBuffer(8 * Int32Array.BYTES_PER_ELEMENT));
const nap = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

export const sleep = (ms) => Atomics.wait(nap, 0, 0, ms);
export const isStopAsked = () => Atomics.load(shared, STOP) === 1;
export const isOutputLost = () => Atomics.load(shared, LOST) === 1;

/** Whether a thread was left to do something that is of no use any more, and can't be stopped. */
export const leftWork = { isThere: false };

/** Runs in the worker, by its text alone: nothing from outside it but what it is given. */
function watch() {
    const fs = require("node:fs");
    const { parentPort, workerData } = require("node:worker_threads");
    const { shared, place, folder, mayFinish, limits, startedAt } = workerData;
    const beat = Buffer.from('["beat"]\n');
    const input = Buffer.alloc(4096);
    const toWrite = [];
    let heardAt = Date.now();

    function end() {
        Atomics.store(shared, place.ENDING, 1);
        try {
            fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3, retryDelay: 5 });
        } finally {
            process.kill(process.pid, "SIGKILL");
        }
    }

    function tell(what, value) {
        Atomics.store(shared, what, value);
        Atomics.notify(shared, what);
    }

    /** What is being written may never be: nobody waits for it any more. */
    function askToStop() {
        tell(place.STOP, 1);
        Atomics.notify(shared, place.WRITTEN);
    }

    function onInputEnd() {
        tell(place.INPUT_ENDED, 1);
        if (mayFinish && !Atomics.load(shared, place.DONE)) {
            askToStop();
            setTimeout(end, limits.removalMs);
        } else if (Atomics.load(shared, place.DONE)) {
            setTimeout(end, limits.finishMs);
        } else {
            end();
        }
    }

    function listen() {
        fs.read(0, input, 0, input.length, null, (error, count) => {
            if (error?.code === "EAGAIN") {
                setTimeout(listen, limits.lookMs);
            } else if (error || count === 0) {
                onInputEnd();
            } else {
                heardAt = Date.now();
                listen();
            }
        });
    }

    function sayThatWeLive() {
        const isSilent = Date.now() - startedAt - Atomics.load(shared, place.WRITTEN_AT) >= limits.beatMs;
        const isWanted = isSilent && toWrite.length === 0 && !Atomics.load(shared, place.DONE);
        if (isWanted && Atomics.compareExchange(shared, place.WRITING, 0, 1) === 0) {
            fs.write(1, beat, () => {
                Atomics.store(shared, place.WRITTEN_AT, Date.now() - startedAt);
                tell(place.WRITING, 0);
            });
        }
    }

    function write(data) {
        fs.write(1, data, (error, count) => {
            if (error?.code === "EAGAIN") {
                setTimeout(write, limits.retryMs, data);
            } else if (error) {
                tell(place.LOST, 1);
                askToStop();
            } else if (count < data.length) {
                write(data.subarray(count));
            } else {
                Atomics.add(shared, place.WRITTEN, 1);
                Atomics.notify(shared, place.WRITTEN);
                toWrite.shift();
                if (toWrite.length > 0) {
                    write(toWrite[0]);
                }
            }
        });
    }

    function writeInTurn(data) {
        toWrite.push(data);
        if (toWrite.length === 1) {
            write(data);
        }
    }

    listen();
    parentPort.on("message", writeInTurn);
    setInterval(() => {
        if (Date.now() - heardAt >= limits.leaseMs) {
            end();
        } else {
            sayThatWeLive();
        }
    }, limits.lookMs);
}

/** Start what watches; it writes what it is sent. */
export function startWorker(folder, mayFinish, startedAt) {
    const limits = {
        leaseMs: LEASE_MS,
        removalMs: REMOVAL_ENDS_WITHIN_MS,
        finishMs: FINISH_MS,
        beatMs: BEAT_MS,
        lookMs: LOOK_MS,
        retryMs: RETRY_MS,
    };
    const place = { WRITING, WRITTEN_AT, STOP, DONE, INPUT_ENDED, ENDING, WRITTEN, LOST };
    const workerData = { shared, place, folder, mayFinish, limits, startedAt };
    const worker = new Worker(`(${watch})()`, { eval: true, workerData });
    worker.unref();
    return worker;
}

/** A folder for copies of databases, which nobody else can read, or guess. */
export const privateFolder = {
    path: "",

    make() {
        system(encoded(this.path), () => fs.mkdirSync(this.path, { mode: 0o700 }));
        // The worker sets this before it removes the folder: one of us sees what the other has done.
        if (Atomics.load(shared, ENDING) === 1) {
            endNow();
        }
    },

    remove() {
        if (this.path !== "") {
            fs.rmSync(this.path, { recursive: true, force: true });
        }
    },
};

export function endNow() {
    try {
        privateFolder.remove();
    } finally {
        process.kill(process.pid, "SIGKILL");
        sleep(FINISH_MS);
    }
}
