// What can go wrong, and what records say of it: the twin of sidecar/errors.py.

import { wireName } from "./text.mjs";

/** What a system call said: the name of its error, and what it was given. */
export class SystemError extends Error {
    constructor(code, given) {
        super(code);
        this.code = code;
        this.given = given;
    }
}

/**
 * What sidecar/errors.py has a class for; `kind` names it. The message is a byte string, for the names in it.
 *
 * `details`, if there are any, are what else is known of it, for programs; as they go on the wire.
 */
export class Trouble extends Error {
    constructor(kind, message, details = null) {
        super(message);
        this.kind = kind;
        this.details = details;
    }
}

/** What was read of a transcript and what is left of it are not of one state: begin again. */
export class Rewritten extends Error {}

/** There is no such session any more. */
export class Vanished extends Error {}

export const broken = (message) => new Trouble("broken_database", message);
export const unreadable = (message) => new Trouble("source_unreadable", message);
export const cutOff = () => new Trouble("broken_compression", "the compressed data ends in the middle");
export const rewrittenMeanwhile = () => unreadable("the session was rewritten while it was read; try again");

export function isTold(error) {
    return error instanceof SystemError || error instanceof Trouble;
}

/** Throws on what is a fault of this program, or a sign to code that called. */
export function unlessTold(error) {
    if (!isTold(error)) {
        throw error;
    }
}

export function told(error) {
    return error instanceof SystemError
        ? [error.code, error.given === null ? null : wireName(error.given), null]
        : [null, null, wireName(error.message)];
}

/** What `call` returns; `given` is what Python's function would have been given, and tells of. */
export function system(given, call) {
    try {
        return call();
    } catch (error) {
        throw error.syscall === undefined ? error : new SystemError(error.code, given);
    }
}
