/** The word for a value of the protocol; undefined for one that a later sidecar may have added. */
export function wordFor(words: Record<string, string>, value: string): string | undefined {
  return Object.hasOwn(words, value) ? words[value] : undefined;
}
