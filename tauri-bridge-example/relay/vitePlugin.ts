import type { Server } from "node:http";
import type { Plugin } from "vite";
import { serveRelay, type RelayOptions } from "./relay.ts";

/** Serves the relay beside the page, by `vite` and by `vite preview`. */
export function relayPlugin(options: RelayOptions): Plugin {
  return {
    name: "sidecar-relay",
    configureServer: ({ httpServer }) => {
      if (httpServer !== null) serveRelay(httpServer as Server, options);
    },
    configurePreviewServer: ({ httpServer }) => {
      serveRelay(httpServer as Server, options);
    },
  };
}
