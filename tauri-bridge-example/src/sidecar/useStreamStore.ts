import { useEffect, useState, useSyncExternalStore } from "react";
import type { HostId } from "./call";
import type { EventName } from "./stream";
import type { StreamModel, StreamState, StreamStore } from "./streamStore";

/** A store of the component, made once, and its state. Its stream is cancelled when the component goes, or the host changes. */
export function useStreamStore<N extends EventName, View, Model extends StreamModel<N, View>>(
  hostId: HostId,
  newStore: () => StreamStore<N, View, Model>,
): [StreamStore<N, View, Model>, StreamState<View>] {
  const [store] = useState(newStore);
  const state = useSyncExternalStore(store.subscribe, store.state);
  useEffect(() => store.stop, [store, hostId]);
  return [store, state];
}
