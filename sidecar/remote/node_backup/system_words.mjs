// System calls by byte strings, and the system's own words for what went wrong: as `describe_os_error` in
// sidecar/errors.py.

import fs from "node:fs";

import { system, SystemError, Trouble } from "./errors.mjs";
import { asPath, baseName, joined } from "./text.mjs";

// As glibc says them and Python tells them; libuv has words of its own.
const WORDS = {
    EACCES: "permission denied",
    EBUSY: "device or resource busy",
    EDQUOT: "disk quota exceeded",
    EEXIST: "file exists",
    EFBIG: "file too large",
    EINVAL: "invalid argument",
    EIO: "input/output error",
    EISDIR: "is a directory",
    ELOOP: "too many levels of symbolic links",
    EMFILE: "too many open files",
    EMLINK: "too many links",
    ENAMETOOLONG: "file name too long",
    ENFILE: "too many open files in system",
    ENODEV: "no such device",
    ENOENT: "no such file or directory",
    ENOMEM: "cannot allocate memory",
    ENOSPC: "no space left on device",
    ENOTDIR: "not a directory",
    ENOTEMPTY: "directory not empty",
    ENXIO: "no such device or address",
    EPERM: "operation not permitted",
    EROFS: "read-only file system",
    ESTALE: "stale file handle",
    ETXTBSY: "text file busy",
    EXDEV: "invalid cross-device link",
};

const MAX_LINKS = 40;

export const wordsOf = (error) => WORDS[error.code] ?? error.code.toLowerCase();

/** What went wrong, as a byte string. */
export function describe(error) {
    if (!(error instanceof SystemError)) {
        return error.message;
    }
    return error.given === null ? wordsOf(error) : `${wordsOf(error)}: ${error.given}`;
}

export const isOfSystem = (error, ...codes) => error instanceof SystemError && codes.includes(error.code);
export const isTrouble = (error, kind) => error instanceof Trouble && error.kind === kind;

/** What `call` returns; null where it says one of `codes`. */
export function unless(codes, call) {
    try {
        return call();
    } catch (error) {
        if (isOfSystem(error, ...codes)) {
            return null;
        }
        throw error;
    }
}

/** What `call` returns; null where the system refuses it, however. */
export function ifPossible(call) {
    try {
        return call();
    } catch (error) {
        if (error instanceof SystemError) {
            return null;
        }
        throw error;
    }
}

// Whole numbers of a status are BigInts: a time in nanoseconds is no number that Node could hold.
export const statusOf = (path) => system(path, () => fs.lstatSync(asPath(path), { bigint: true }));
export const statusThrough = (path) => system(path, () => fs.statSync(asPath(path), { bigint: true }));
export const statusOfOpen = (fd) => system(null, () => fs.fstatSync(fd, { bigint: true }));
export const statusIfThere = (path) => unless(["ENOENT", "ENOTDIR"], () => statusOf(path));
export const modeOf = (status) => Number(status.mode & 0o7777n);

/** Whether there is something at `path`, be it a broken link; what can't be found out counts as no. */
export const isLexically = (path) => ifPossible(() => statusOf(path)) !== null;

export const move = (source, target) => system(source, () => fs.renameSync(asPath(source), asPath(target)));
export const unlink = (path) => system(path, () => fs.unlinkSync(asPath(path)));
export const unlinkIfThere = (path) => unless(["ENOENT"], () => unlink(path));
export const setMode = (path, mode) => system(path, () => fs.chmodSync(asPath(path), mode));
export const setOwner = (path, [user, group]) => system(path, () => fs.chownSync(asPath(path), user, group));
export const readLink = (path) => system(path, () => fs.readlinkSync(asPath(path), "buffer").toString("latin1"));
export const makeLink = (target, path) => system(path, () => fs.symlinkSync(asPath(target), asPath(path)));
export const listNames = (path) => system(path, () => fs.readdirSync(asPath(path), "buffer").map(latin1));

/** Set the times of a file or a folder, to a microsecond: Node takes seconds as a number. */
export function setTimes(path, modifiedAtNs, readAtNs = modifiedAtNs) {
    const seconds = (timeNs) => Number(timeNs) / 1e9;
    system(path, () => fs.utimesSync(asPath(path), seconds(readAtNs), seconds(modifiedAtNs)));
}

/** Make a file for its owner only, where there is none; open it to write. The caller closes it. */
export const openNew = (path) => system(path, () => fs.openSync(asPath(path), "wx", 0o600));
export const makeEmptyFile = (path) => fs.closeSync(openNew(path));

export function makeFolder(path, mode) {
    system(path, () => fs.mkdirSync(asPath(path), { mode }));
}

/** Make a folder, and those on the way to it, as far as they aren't there. */
export function makeFolders(path, mode) {
    const isThere = unless(["ENOENT"], () => statusThrough(path)) !== null;
    if (!isThere) {
        if (dirName(path) !== path) {
            makeFolders(dirName(path), 0o777);
        }
        unless(["EEXIST"], () => makeFolder(path, mode));
    }
}

export function dirName(path) {
    const end = path.lastIndexOf("/");
    return end > 0 ? path.slice(0, end) : path.slice(0, end + 1);
}

/** Where a path leads to, links followed, as far as there is something; the rest of it as it is. */
export function realPathOf(path, links = 0) {
    try {
        return fs.realpathSync(asPath(path), "buffer").toString("latin1");
    } catch {
        if (path === "/" || path === "" || links > MAX_LINKS) {
            return path;
        }
        const target = statusIfThere(path)?.isSymbolicLink() ? readLink(path) : null;
        return target === null
            ? joined(realPathOf(dirName(path), links), baseName(path))
            : realPathOf(joined(dirName(path), target), links + 1);
    }
}

function latin1(name) {
    return name.toString("latin1");
}
