// @vitest-environment node
import { expect, it } from "vitest";
import { linesOf } from "../../relay/lines";

const TEXT = "one\n\ntwo \u2028 is one line\nthree";

async function cut(pieces: string[], maxBytes = 100): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of linesOf(chunksOf(pieces), maxBytes)) lines.push(line.toString());
  return lines;
}

// eslint-disable-next-line @typescript-eslint/require-await
async function* chunksOf(pieces: string[]) {
  for (const piece of pieces) yield Buffer.from(piece, "latin1");
}

it.each([1, 2, 3, 7, 1_000])(
  "lines are the same in pieces of %i bytes, without what has no end",
  async (pieceBytes) => {
    const bytes = Buffer.from(TEXT).toString("latin1");
    const pieces = bytes.match(new RegExp(`[^]{1,${String(pieceBytes)}}`, "g"))!;
    expect(await cut(pieces)).toEqual(["one", "", "two \u2028 is one line"]);
  },
);

it("a line that is too long is an error, and those before it are not", async () => {
  const lines: string[] = [];
  const all = (async () => {
    for await (const line of linesOf(chunksOf(["a\nbbb", "bbb", "bbb\n"]), 5)) lines.push(line.toString());
  })();
  await expect(all).rejects.toThrow("a line of more than 5 bytes");
  expect(lines).toEqual(["a"]);
});
