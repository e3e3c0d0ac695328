/** What a rejected command meant: Tauri hands over the message only, whose words the protocol promises. */

import type { ErrorKind } from "../../../protocol/types";

// Of several the first: what the later ones look for may stand in a message of an earlier one.
const WORDS: readonly [RegExp, ErrorKind][] = [
  [/host key verification failed.* is not known/i, "host_key_unknown"],
  [/host key verification failed/i, "host_key_changed"],
  [/no such host/i, "host_not_found"],
  [/permission denied: .* accepts none|sign_and_send_pubkey/i, "login_refused"],
  [/\bneeds a passphrase/i, "passphrase_needed"],
  [/ssh open channel failed/i, "channel_refused"],
  [/timed out/i, "timed_out"],
  [/connection closed/i, "connection_lost"],
  [/connection (refused|reset)|failed to open channel|no route to host|network is unreachable/i, "host_unreachable"],
  [/\b\d+ (sessions|files) deleted, \d+ refused/i, "sessions_refused"],
  [/no home directory/i, "home_unknown"],
  [/no such file|permission denied|not a directory/i, "source_unreadable"],
  [/^[\w.]+: (field required|input should)/i, "invalid_params"],
];

export function errorKind(message: string): ErrorKind | null {
  return WORDS.find(([words]) => words.test(message))?.[1] ?? null;
}

/** Which host has which key, of the message of `host_key_unknown`. */
export function hostKeyOf(message: string): { host: string; fingerprint: string } | null {
  const found = /(\S+) is not known; its key has the fingerprint (SHA256:\S+)/.exec(message);
  return found && { host: found[1]!, fingerprint: found[2]! };
}
