import { isTauri } from "@tauri-apps/api/core";
import { useCallback, useEffect, useState } from "react";
import { call, errorText, type HostId } from "../sidecar/call";
import { errorKind, hostKeyOf } from "../sidecar/errorKind";

/** How it stands with the connection to the chosen host, and what its user is to be asked. */
export type ConnectionState =
  | { phase: "connecting" | "connected" | "disconnected" }
  | { phase: "trust"; host: string; fingerprint: string }
  | { phase: "passphrase"; wrong: boolean }
  | { phase: "failed"; error: string };

export interface Connection {
  state: ConnectionState;
  connect: () => void;
  disconnect: () => void;
  trust: (fingerprint: string) => void;
  unlock: (passphrase: string) => void;
  /** The user doesn't want to go on. */
  refuse: () => void;
}

/** Connects as soon as a host is chosen; this machine needs no connection. */
export function useConnection(hostId: HostId): Connection {
  // Of each host that was chosen: an answer that comes late is of its own.
  const [states, setStates] = useState<Readonly<Record<string, ConnectionState>>>({});
  const setState = useCallback(
    (state: ConnectionState) => {
      if (hostId !== null) setStates((before) => ({ ...before, [hostId]: state }));
    },
    [hostId],
  );
  const ask = useCallback(
    (connect: (hostId: string) => Promise<unknown>, passphraseGiven = false) => {
      if (hostId === null) return;
      connect(hostId).then(
        () => {
          setState({ phase: "connected" });
        },
        (error: unknown) => {
          setState(stateAfter(errorText(error), passphraseGiven));
        },
      );
    },
    [hostId, setState],
  );
  useEffect(() => {
    ask(connectTo);
    return () => {
      setState({ phase: "connecting" });
    };
  }, [ask, setState]);

  const attempt: typeof ask = (connect, passphraseGiven) => {
    setState({ phase: "connecting" });
    ask(connect, passphraseGiven);
  };
  return {
    state: (hostId === null ? undefined : states[hostId]) ?? { phase: "connecting" },
    connect: () => {
      attempt(connectTo);
    },
    disconnect: () => {
      if (hostId === null) return;
      setState({ phase: "disconnected" });
      // It answers true whatever there was.
      call("ssh_disconnect", { hostId }).catch(() => true);
    },
    trust: (fingerprint) => {
      attempt(async (id) => {
        await call("trust_ssh_host_key", { hostId: id, fingerprint });
        await call("ssh_connect", { hostId: id });
      });
    },
    unlock: (passphrase) => {
      attempt((id) => call("ssh_connect_with_passphrase", { hostId: id, passphrase }), true);
    },
    refuse: () => {
      setState({ phase: "disconnected" });
    },
  };
}

function connectTo(hostId: string) {
  return call("ssh_connect", { hostId });
}

function stateAfter(error: string, passphraseGiven: boolean): ConnectionState {
  const kind = errorKind(error);
  if (kind === "passphrase_needed") return { phase: "passphrase", wrong: passphraseGiven };
  // In the app the bridge has asked already, in a window that no page can press for the user.
  const key = kind === "host_key_unknown" && !isTauri() ? hostKeyOf(error) : null;
  return key === null ? { phase: "failed", error } : { phase: "trust", ...key };
}
