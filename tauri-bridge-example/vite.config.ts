import path from "node:path";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { relayPlugin } from "./relay/vitePlugin.ts";
import { RELAY_PATH } from "./src/browser/relay.ts";

const command = process.env["CLAWPAL_SIDECAR"] ?? path.resolve(import.meta.dirname, "../.venv/bin/clawpal-sidecar");

/** The mode `browser` is the page without Tauri: it speaks to a sidecar through the relay. */
export default defineConfig(({ mode }) => {
  const browser = mode === "browser";
  return {
    plugins: [react(), browser && relayPlugin({ path: RELAY_PATH, command, env: process.env })],
    clearScreen: false,
    // The first is what tauri.conf.json names. The relay is for this machine only.
    server: { port: browser ? 1421 : 1420, strictPort: true, ...(browser && { host: "127.0.0.1" }) },
    preview: { port: 1421, strictPort: true, host: "127.0.0.1" },
    build: { outDir: browser ? "dist-browser" : "dist" },
  };
});
