// Names, paths and JSON text: the twin of sidecar/text.py.
//
// Names and paths are held as *byte strings*: one character, U+0000 to U+00FF, for each byte. They compare as bytes do,
// take any name, and ASCII patterns work on them. wireName and fileName are the way out and in.

import buffers from "node:buffer";

import { MAX_DEPTH } from "./limits.mjs";

// Node 18.14 has it; before, no line is taken for one that can be cut.
export const isUtf8 = buffers.isUtf8 ?? (() => false);
export const LF = 0x0a;

const NON_ASCII = /[\x80-\xff]/;
const UTF8_CHARACTER =
    "[\\0-\\x7f]|[\\xc2-\\xdf][\\x80-\\xbf]|\\xe0[\\xa0-\\xbf][\\x80-\\xbf]|[\\xe1-\\xec\\xee\\xef][\\x80-\\xbf]{2}" +
    "|\\xed[\\x80-\\x9f][\\x80-\\xbf]|\\xf0[\\x90-\\xbf][\\x80-\\xbf]{2}|[\\xf1-\\xf3][\\x80-\\xbf]{3}" +
    "|\\xf4[\\x80-\\x8f][\\x80-\\xbf]{2}";
const INVALID_BYTE = new RegExp(`${UTF8_CHARACTER}|([\\x80-\\xff])`, "g");
const REPLACEMENT = "\xef\xbf\xbd";
const TO_ESCAPE = new RegExp(`(${REPLACEMENT}(?=[89a-f][0-9a-f]))|${UTF8_CHARACTER}|([\\x80-\\xff])`, "g");
const ESCAPED_BYTE = new RegExp(`${REPLACEMENT}([89a-f][0-9a-f])`, "g");
const LONE_SURROGATE = /\p{Surrogate}/gu;
export const NOT_BLANK = /[^ \t\r\n]/;

export const asPath = (name) => Buffer.from(name, "latin1");
export const asBytes = (data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("latin1");
export const decoded = (bytes) => Buffer.from(bytes, "latin1").toString();
export const encoded = (text) => Buffer.from(text).toString("latin1");
export const mended = (text) => text.replace(LONE_SURROGATE, "\ufffd");

/** The wire name of a name, as bytes: each byte that is no UTF-8 as U+FFFD and two hex digits. */
export function wireBytes(name) {
    if (!NON_ASCII.test(name)) {
        return name;
    }
    const escape = (bytes) =>
        Array.from(bytes, (byte) => REPLACEMENT + byte.charCodeAt(0).toString(16).padStart(2, "0")).join("");
    return name.replace(TO_ESCAPE, (match, replacement, byte) => (replacement || byte ? escape(match) : match));
}

export function wireName(name) {
    return NON_ASCII.test(name) ? decoded(wireBytes(name)) : name;
}

export function fileName(wire) {
    return encoded(wire).replace(ESCAPED_BYTE, (_, digits) => String.fromCharCode(parseInt(digits, 16)));
}

/** What sorts as Python sorts names: by code points, each byte that is no UTF-8 as one from U+DC80 on. */
export function sortKey(name) {
    if (!NON_ASCII.test(name)) {
        return name;
    }
    return name.replace(INVALID_BYTE, (match, byte) => {
        const code = match.charCodeAt(0);
        return byte ? `\xed${String.fromCharCode(0xb0 + (code >> 6), 0x80 + (code & 0x3f))}` : match;
    });
}

export function compare(one, other) {
    return one < other ? -1 : Number(one > other);
}

export const byName = (one, other) => compare(sortKey(one), sortKey(other));

/** The first `count` characters; a half of a surrogate pair counts as one. */
export function firstCharacters(text, count) {
    if (text.length <= count) {
        return text;
    }
    const characters = Array.from(text.slice(0, 2 * count));
    return characters.slice(0, count).join("");
}

export function hasAtMost(text, count) {
    return text.length <= count || (text.length <= 2 * count && Array.from(text).length <= count);
}

/** As `JSON.parse`, which has no limit of its own: what is nested deeper than Python's parsers go is refused. */
export function parse(text) {
    const value = JSON.parse(text);
    if (text.length > 2 * MAX_DEPTH && hasMany(text, MAX_DEPTH) && isDeep(value, MAX_DEPTH)) {
        throw new SyntaxError("nested too deep");
    }
    return value;
}

/** Whether there are more than `most` beginnings of arrays and objects, some of them perhaps in strings. */
function hasMany(text, most) {
    let count = 0;
    for (const mark of ["[", "{"]) {
        for (let place = text.indexOf(mark); place >= 0 && count <= most; place = text.indexOf(mark, place + 1)) {
            count += 1;
        }
    }
    return count > most;
}

function isDeep(value, most) {
    const isContainer = (inner) => typeof inner === "object" && inner !== null;
    let level = [value].filter(isContainer);
    for (let depth = 1; level.length > 0 && depth <= most; depth++) {
        level = level.flatMap((container) => Object.values(container).filter(isContainer));
    }
    return level.length > 0;
}

export function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `joined("/a", "b")` and `joined("/a/", "b")` are the same; an absolute second part stands alone. */
export function joined(folder, name) {
    return name.startsWith("/") ? name : folder === "" || folder.endsWith("/") ? folder + name : `${folder}/${name}`;
}

export function baseName(path) {
    return path.slice(path.lastIndexOf("/") + 1);
}
