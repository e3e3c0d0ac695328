// Records on stdout: the twin of sidecar/remote/sftp/output.py.

import fs from "node:fs";
import process from "node:process";

import { told } from "./errors.mjs";
import { FINISH_MS, FLUSH_BYTES, FLUSH_MS, LOOK_MS, RETRY_MS } from "./limits.mjs";
import { LF } from "./text.mjs";
import {
    DONE,
    endNow,
    INPUT_ENDED,
    isOutputLost,
    isStopAsked,
    leftWork,
    shared,
    sleep,
    startWorker,
    WRITING,
    WRITTEN,
    WRITTEN_AT,
} from "./watchdog.mjs";

class Output {
    #startedAt = Date.now();
    #pending = "";
    #pendingSince = 0;
    #mayFinish = false;
    #saysHowItEnded = false;
    #posted = 0;
    #worker;
    isLost = false;

    /** From now on the process ends with its input, or with its lease. */
    startWatch(folder, mayFinish, saysHowItEnded) {
        this.#mayFinish = mayFinish;
        this.#saysHowItEnded = saysHowItEnded;
        // Nothing may be written before the sentinel, and it is we who write that.
        Atomics.store(shared, WRITTEN_AT, 0x7fffffff);
        this.#worker = startWorker(folder, mayFinish, this.#startedAt);
    }

    begin(nonce) {
        this.#write(Buffer.from(`\nclawpal-helper ${nonce}\n`));
    }

    record(...items) {
        if (this.#pending === "") {
            this.#pendingSince = Date.now();
        }
        this.#pending += `${JSON.stringify(items)}\n`;
        this.tick();
    }

    /** A record that is followed by `data`. */
    bytes(name, data, ...more) {
        const head = `${this.#pending}${JSON.stringify([name, ...more, data.length])}\n`;
        this.#pending = "";
        this.#write(Buffer.from(head), data, Buffer.of(LF));
    }

    /** To be called between blocks, rows and files: what waits is written, if it is much or old. */
    tick() {
        if (this.#pending !== "") {
            if (this.#pending.length >= FLUSH_BYTES || Date.now() - this.#pendingSince >= FLUSH_MS) {
                this.flush();
            }
        }
    }

    flush() {
        const pending = this.#pending;
        this.#pending = "";
        if (pending !== "") {
            this.#write(Buffer.from(pending));
        }
    }

    /** Write whole records, which the worker's must not come between. */
    #write(...pieces) {
        while (Atomics.compareExchange(shared, WRITING, 0, 1) !== 0) {
            Atomics.wait(shared, WRITING, 1);
        }
        try {
            pieces.forEach((piece) => this.#writeAll(piece));
        } finally {
            Atomics.store(shared, WRITTEN_AT, Date.now() - this.#startedAt);
            Atomics.store(shared, WRITING, 0);
            Atomics.notify(shared, WRITING);
        }
    }

    #writeAll(data) {
        if (this.#mayFinish) {
            this.#handOver(data);
            return;
        }
        for (let place = 0; place < data.length;) {
            try {
                place += fs.writeSync(1, data, place);
            } catch (error) {
                if (error.code !== "EAGAIN") {
                    endNow();
                }
                sleep(RETRY_MS);
            }
        }
    }

    /** Have the worker write, so that we need not wait for a reader who has stopped while there is something to end. */
    #handOver(data) {
        if (this.isLost) {
            return;
        }
        this.#posted += 1;
        this.#worker.postMessage(data);
        this.#waitUntil(isStopAsked);
        this.isLost = this.#saysHowItEnded ? isOutputLost() : isStopAsked();
    }

    #waitUntil(isOver) {
        for (;;) {
            const written = Atomics.load(shared, WRITTEN);
            if (written === this.#posted || isOver()) {
                return;
            }
            Atomics.wait(shared, WRITTEN, written, LOOK_MS);
        }
    }

    /** Write all that there is; whether it could be. */
    isAllWritten() {
        this.flush();
        const giveUpAt = Date.now() + FINISH_MS;
        if (!this.isLost) {
            this.#waitUntil(() => isOutputLost() || Date.now() >= giveUpAt);
        }
        return !this.isLost && Atomics.load(shared, WRITTEN) === this.#posted;
    }
}

export const out = new Output();

export const tellFailure = (path, error) => out.record("failed", path, ...told(error));

/** An exit would wait for the worker's read, so for the end of the input. */
export function finish() {
    Atomics.store(shared, DONE, 1);
    const isAllWritten = out.isAllWritten();
    Atomics.wait(shared, INPUT_ENDED, 0, FINISH_MS);
    // An exit would wait for a write, too, that nobody takes, and for whatever else is still at work.
    if (Atomics.load(shared, INPUT_ENDED) === 1 && isAllWritten && !leftWork.isThere) {
        process.exit(0);
    }
    endNow();
}
