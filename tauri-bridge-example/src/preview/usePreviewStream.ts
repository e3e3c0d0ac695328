import { useCallback, useEffect } from "react";
import { callOn, type HostId } from "../sidecar/call";
import { Stream } from "../sidecar/stream";
import { StreamStore, type StreamState } from "../sidecar/streamStore";
import { useStreamStore } from "../sidecar/useStreamStore";
import { PREVIEW_EVENTS, PreviewModel, type PreviewEventName, type PreviewView } from "./previewModel";

export interface PreviewStream extends StreamState<PreviewView> {
  /** Read the session, again if it was. */
  start: () => void;
  cancel: () => void;
}

/** The messages of a session, from the moment that it is shown until it no longer is. */
export function usePreviewStream(hostId: HostId, agentId: string, sessionId: string): PreviewStream {
  const [store, state] = useStreamStore(hostId, newStore);
  const { cancel } = store;
  const start = useCallback(() => {
    const open = () => callOn(hostId, "preview_session_stream", { agentId, sessionId });
    store.start((handlers) => new Stream({ ...handlers, events: PREVIEW_EVENTS, open }));
  }, [store, hostId, agentId, sessionId]);
  useEffect(() => {
    start();
  }, [start]);
  const { full } = state.view;
  useEffect(() => {
    if (full) cancel();
  }, [full, cancel]);
  return { ...state, start, cancel };
}

function newStore() {
  return new StreamStore<PreviewEventName, PreviewView, PreviewModel>(() => new PreviewModel());
}
