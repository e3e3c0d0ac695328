/** Commands of the sidecar, by the names and types of the protocol, as a Tauri page calls them. */

import { invoke } from "@tauri-apps/api/core";
import type { Methods } from "../../../protocol/types";

type MethodName = keyof Methods;

/** The commands that have a `remote_` twin, which takes `hostId` as well. */
export type TwinName = { [M in MethodName]: `remote_${M}` extends MethodName ? M : never }[MethodName];

/** A host's id in the list of hosts; null is this machine. */
export type HostId = string | null;

/** Rejects with a sentence for people, as a bare string. */
export function call<M extends MethodName>(method: M, params: Methods[M]["params"]): Promise<Methods[M]["result"]> {
  return invoke(method, params);
}

/** The same on this machine, or on a host by the command's twin. */
export function callOn<M extends TwinName>(
  hostId: HostId,
  method: M,
  params: Methods[M]["params"],
): Promise<Methods[M]["result"]> {
  return hostId === null ? invoke(method, params) : invoke(`remote_${method}`, { ...params, hostId });
}

/** What went wrong, as words: a rejected command gives a string, a fault of the page an `Error`. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
