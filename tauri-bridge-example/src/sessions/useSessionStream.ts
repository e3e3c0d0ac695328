import { useCallback } from "react";
import type { HostId } from "../sidecar/call";
import { StreamStore, type StreamState } from "../sidecar/streamStore";
import { useStreamStore } from "../sidecar/useStreamStore";
import { AnalysisRun, EAGER_MAX_FILES, streamAnalysis } from "./analysisRun";
import { SessionModel, type SessionEventName, type SessionName, type SessionsView } from "./sessionModel";

export interface SessionStream extends StreamState<SessionsView> {
  /** Analyse every session by the stream; an analysis that runs is cancelled. */
  start: (options?: { batchSize?: number }) => void;
  /** The same by the command that suits the number of files. */
  analyse: () => void;
  cancel: () => void;
  /** These sessions were deleted. */
  remove: (names: readonly SessionName[]) => void;
}

/** The analysis of one machine's sessions, which ends with the component. */
export function useSessionStream(hostId: HostId): SessionStream {
  const [store, state] = useStreamStore(hostId, newStore);
  const start = useCallback(
    (options: { batchSize?: number } = {}) => {
      store.start((handlers) => streamAnalysis(hostId, options, handlers));
    },
    [store, hostId],
  );
  const analyse = useCallback(() => {
    // There were many a moment ago: no need to look.
    if (store.state().view.totalSessions > EAGER_MAX_FILES) start();
    else store.start((handlers) => new AnalysisRun(hostId, handlers));
  }, [store, hostId, start]);
  const remove = useCallback(
    (names: readonly SessionName[]) => {
      store.change((model) => {
        model.remove(names);
      });
    },
    [store],
  );
  return { ...state, start, analyse, cancel: store.cancel, remove };
}

function newStore() {
  return new StreamStore<SessionEventName, SessionsView, SessionModel>(() => new SessionModel());
}
