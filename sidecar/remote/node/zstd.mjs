// Open zstd, or send it on as it is where Node can't or something is wrong with it: the twin of sidecar/core/zstd.py.

import zlib from "node:zlib";

import { cutOff } from "./errors.mjs";
import { BLOCK_BYTES, MAX_HELD_BYTES, MAX_HELD_COMPRESSED_BYTES, MAX_WINDOW_LOG } from "./limits.mjs";

/** Whether this Node can open zstd. */
export const hasZstd = typeof zlib.zstdDecompressSync === "function";

const ZSTD_MAGIC = 0xfd2fb528;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4];

/** The parts of a frame's header, or null if it is none: where it ends, and which size it tells, if any. */
export function zstdHeader(data, start) {
    const descriptor = data[start + 4];
    if (data.length - start < 6 || data.readUInt32LE(start) !== ZSTD_MAGIC) {
        return null;
    }
    const isSingle = (descriptor & 0x20) !== 0;
    const sizeAt = start + 5 + (isSingle ? 0 : 1) + DICTIONARY_ID_BYTES[descriptor & 3];
    const width = descriptor >> 6 ? 1 << (descriptor >> 6) : Number(isSingle);
    if (sizeAt + width > data.length) {
        return null;
    }
    const low = width === 8 ? data.readUInt32LE(sizeAt) : width && data.readUIntLE(sizeAt, width);
    const high = width === 8 ? data.readUInt32LE(sizeAt + 4) : 0;
    const contentBytes = width === 0 ? null : low + high * 2 ** 32 + (width === 2 ? 256 : 0);
    return { end: sizeAt + width, contentBytes, hasChecksum: (descriptor & 4) !== 0 };
}

/** Where the frame that begins at `start` ends; null if it doesn't. Node takes a cut-off one without a word. */
function zstdFrameEnd(data, start) {
    const header = zstdHeader(data, start);
    if (header === null) {
        return null;
    }
    let place = header.end;
    for (let isLast = false; !isLast;) {
        if (place + 3 > data.length) {
            return null;
        }
        const block = data.readUIntLE(place, 3);
        const isRepeated = ((block >> 1) & 3) === 1;
        isLast = (block & 1) === 1;
        place += 3 + (isRepeated ? 1 : block >> 3);
    }
    place += header.hasChecksum ? 4 : 0;
    return place <= data.length ? place : null;
}

/** What the frames hold, one after another; null if Node can't tell, or it is more than may be held. */
export function decompressed(data) {
    if (!hasZstd || data.length === 0) {
        return null;
    }
    const params = { [zlib.constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG };
    const contents = [];
    let room = MAX_HELD_BYTES;
    try {
        for (let start = 0, end; start < data.length; start = end) {
            end = zstdFrameEnd(data, start);
            if (end === null) {
                return null;
            }
            // Node's own call stops after the first frame.
            const frame = data.subarray(start, end);
            const content = zlib.zstdDecompressSync(frame, { params, maxOutputLength: Math.max(room, 1) });
            const { contentBytes } = zstdHeader(data, start);
            if (contentBytes !== null && contentBytes !== content.length) {
                return null;
            }
            room -= content.length;
            contents.push(content);
        }
    } catch {
        return null;
    }
    return contents.length === 1 ? contents[0] : Buffer.concat(contents);
}

/** The line that is a row's one frame; null if Node can't tell. */
export function decompressedRow(frame) {
    return zstdFrameEnd(frame, 0) === frame.length ? decompressed(frame) : null;
}

/** Hand on what is compressed: opened, if that is wanted and can be done here, else as it is. */
export function sendCompressed(name, reader, sink) {
    const isHeld = !sink.wantsCompressed && hasZstd && reader.left <= MAX_HELD_COMPRESSED_BYTES;
    const data = isHeld ? reader.readAll() : null;
    const content = isHeld ? decompressed(data) : null;
    if (content !== null) {
        sink.block(content, 0, content.length);
        sink.measure(content.length);
        return;
    }
    forwardCompressed(name, isHeld ? [data] : chunksOf(reader), sink);
}

export function forwardCompressed(name, chunks, sink) {
    let isEmpty = true;
    for (const chunk of chunks) {
        for (let start = 0; start < chunk.length; start += BLOCK_BYTES) {
            sink.forward(name, chunk.subarray(start, start + BLOCK_BYTES));
            isEmpty = false;
        }
    }
    if (isEmpty) {
        throw cutOff();
    }
}

export function* chunksOf(reader) {
    const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    for (let count = reader.read(buffer, 0, BLOCK_BYTES); count > 0; count = reader.read(buffer, 0, BLOCK_BYTES)) {
        yield buffer.subarray(0, count);
    }
}
