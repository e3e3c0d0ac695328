import { readdirSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { Format } from "../../src/i18n/format";
import { languageOf, TEXTS } from "../../src/i18n/text";
import { errorKind, hostKeyOf } from "../../src/sidecar/errorKind";
import { readTranscript } from "./transcript";

/** Of commands that the page calls and awaits: their errors are bare strings to it. */
const CALLED = /^(remote_)?(analyze_sessions|delete_sessions_by_ids|ssh_connect|ssh_connect_with_passphrase)(\.\w+)?$/;

function recordedErrors(): [string, string][] {
  const folder = path.resolve(import.meta.dirname, "../../../protocol/transcripts");
  const errors: [string, string][] = [];
  for (const file of readdirSync(folder)) {
    const name = file.replace(/\.jsonl$/, "");
    if (!file.endsWith(".jsonl") || !CALLED.test(name)) continue;
    for (const { said } of readTranscript(name)) {
      for (const line of said) {
        if (line.id === undefined || line.error === undefined) continue;
        const { message, data } = line.error as { message: string; data: { kind: string } };
        errors.push([message, data.kind]);
      }
    }
  }
  return errors;
}

describe("an error of which there are only words", () => {
  it("is of the kind that the protocol gives it, in all that is recorded", () => {
    const errors = recordedErrors().filter(([, kind]) => kind !== "cancelled" && kind !== "reply_too_large");
    expect(new Set(errors.map(([, kind]) => kind)).size).toBeGreaterThan(6);
    expect(errors.map(([message]) => [message, errorKind(message)])).toEqual(errors);
  });

  it("of a host that isn't known has its name and its fingerprint", () => {
    const message =
      "host key verification failed: lab.example.org is not known; its key has the fingerprint SHA256:abc+/1";
    expect(hostKeyOf(message)).toEqual({ host: "lab.example.org", fingerprint: "SHA256:abc+/1" });
    expect(hostKeyOf("host key verification failed: the key of lab has changed")).toBeNull();
  });

  it("that isn't known is of no kind", () => {
    expect(errorKind("the sidecar is gone")).toBeNull();
  });
});

it("each error has words in each language", () => {
  for (const text of Object.values(TEXTS)) {
    for (const words of Object.values(text.errors)) expect(words).toMatch(/[.。]$/);
  }
  // All else that both have is seen to by the compiler.
  expect(Object.keys(TEXTS.zh.errors)).toEqual(Object.keys(TEXTS.en.errors));
});

it("no text of one language was left in the other", () => {
  expect(JSON.stringify(TEXTS.en)).not.toMatch(/\p{Script=Han}/u);
  for (const words of Object.values(TEXTS.zh.errors)) expect(words).toMatch(/\p{Script=Han}/u);
});

it("the first language of the user that there is is taken", () => {
  expect(languageOf(["fr-FR", "zh-Hans-CN", "en"])).toBe("zh");
  expect(languageOf(["en-GB", "zh"])).toBe("en");
  expect(languageOf([])).toBe("en");
});

it.each([
  [0, "0 B"],
  [999, "999 B"],
  [1_000, "1.0 kB"],
  [9_940, "9.9 kB"],
  [9_960, "10 kB"],
  [999_600, "1.0 MB"],
  [28_123_456, "28 MB"],
  [5_400_000_000_000_000, "5,400 TB"],
])("%d bytes are %s", (bytes, written) => {
  expect(new Format("en").size(bytes)).toBe(written);
});
