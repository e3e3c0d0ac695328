// Reads the sessions of an OpenClaw home for clawpal-sidecar, on the host where they lie: the Node engine of the
// README one folder up, from its request to its end.
//
// What is sent is one script that node_script in engines.py makes of these modules; a bootstrap imports it from memory.
// So besides each other they import Node's own modules only. Node 18 is enough for files; node:sqlite and zstd are used
// where they are.
//
// The rules are those of sidecar/stores and sidecar/core, in Python; tests/remote/test_engines.py holds both together.
//
// The main thread never waits for an event: it reads, counts and writes, one thing after another, so a slow reader
// slows the disk.

import fs from "node:fs";
import os from "node:os";
import process from "node:process";

import { isTold, SystemError, told } from "./errors.mjs";
import { BLOCK_BYTES } from "./limits.mjs";
import { openclawDir } from "./locations.mjs";
import { FINISHING, OPERATIONS, SAYS_HOW_IT_ENDED } from "./operations.mjs";
import { finish, out } from "./output.mjs";
import { sqlite } from "./sqlite_open.mjs";
import { LF, wireName } from "./text.mjs";
import { privateFolder, sleep } from "./watchdog.mjs";
import { hasZstd } from "./zstd.mjs";

/** The line of the request; what comes after it is the lease. */
function readRequest() {
    const pieces = [];
    const piece = Buffer.alloc(BLOCK_BYTES);
    for (;;) {
        let count;
        try {
            count = fs.readSync(0, piece);
        } catch (error) {
            if (error.code !== "EAGAIN") {
                throw error;
            }
            sleep(5);
            continue;
        }
        if (count === 0) {
            process.exit(1);
        }
        const end = piece.subarray(0, count).indexOf(LF);
        pieces.push(Buffer.from(piece.subarray(0, end < 0 ? count : end)));
        if (end >= 0) {
            return JSON.parse(Buffer.concat(pieces).toString());
        }
    }
}

function answer(request) {
    const nowMs = Date.now();
    const abilities = [sqlite !== undefined, hasZstd];
    const hello = (shown) => out.record("hello", "node", process.versions.node, nowMs, shown, ...abilities);
    let home;
    try {
        home = openclawDir(request);
    } catch (error) {
        hello(null);
        throw error;
    }
    hello(wireName(home));
    out.flush();
    OPERATIONS[request.op](home, request);
    out.record("end");
}

function main() {
    const request = readRequest();
    if (!/^[0-9a-f]+$/.test(request.nonce) || !Object.hasOwn(OPERATIONS, request.op)) {
        process.exit(1);
    }
    privateFolder.path = `${os.tmpdir()}/clawpal-sidecar-${request.nonce}`;
    out.startWatch(privateFolder.path, FINISHING.has(request.op), SAYS_HOW_IT_ENDED);
    out.begin(request.nonce);
    try {
        answer(request);
    } catch (error) {
        if (!isTold(error)) {
            // The script's address is its text.
            process.stderr.write(`${String(error.stack).replace(/data:text[^:)]*/g, "engine.mjs")}\n`);
        }
        const [code, given, message] = isTold(error) ? told(error) : [null, null, `the helper failed: ${error.name}`];
        const kind = error instanceof SystemError ? null : (error.kind ?? "remote_failed");
        out.record("fail", code, given, message, kind, ...(error.details ? [error.details] : []));
    } finally {
        privateFolder.remove();
    }
    finish();
}

main();
