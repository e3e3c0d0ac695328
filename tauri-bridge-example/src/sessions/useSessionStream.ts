import { useCallback } from "react";
import { callOn, type HostId } from "../sidecar/call";
import { StreamStore, type StreamState } from "../sidecar/streamStore";
import { useStreamStore } from "../sidecar/useStreamStore";
import { SESSION_EVENTS, SessionModel, type SessionsView } from "./sessionModel";

export interface SessionStream extends StreamState<SessionsView> {
  /** Analyse every session; an analysis that runs is cancelled. */
  start: (options?: { batchSize?: number }) => void;
  cancel: () => void;
}

/** The analysis of one machine's sessions, which ends with the component. */
export function useSessionStream(hostId: HostId): SessionStream {
  const [store, state] = useStreamStore(hostId, newStore);
  const start = useCallback(
    (options: { batchSize?: number } = {}) => {
      store.start(() => callOn(hostId, "analyze_sessions_stream", options));
    },
    [store, hostId],
  );
  return { ...state, start, cancel: store.cancel };
}

function newStore() {
  return new StreamStore(SESSION_EVENTS, () => new SessionModel());
}
