/**
 * The lines of a stream of bytes, without their LF.
 *
 * Throws if one is longer than `maxBytes`. A last line without LF is left out: whoever wrote it was cut off.
 */
export async function* linesOf(chunks: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<Buffer> {
  let begun: Buffer[] = [];
  let begunBytes = 0;
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      const rest = chunk.subarray(start, end);
      yield begun.length ? Buffer.concat([...begun, rest]) : rest;
      begun = [];
      begunBytes = 0;
      start = end + 1;
    }
    if (start < chunk.length) begun.push(chunk.subarray(start));
    begunBytes += chunk.length - start;
    if (begunBytes > maxBytes) throw new Error(`the sidecar wrote a line of more than ${String(maxBytes)} bytes`);
  }
}
