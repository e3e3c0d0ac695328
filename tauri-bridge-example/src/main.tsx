import { isTauri } from "@tauri-apps/api/core";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import "./App.css";
import { errorText } from "./sidecar/call";

const root = createRoot(document.getElementById("root")!);

async function main(): Promise<void> {
  // The build for Tauri has nothing of it: the mode is a constant there.
  if (import.meta.env.MODE === "browser" && !isTauri()) {
    const { connectToRelay } = await import("./browser/relay");
    await connectToRelay((reason) => {
      root.render(<p role="alert">The sidecar is gone: {reason}. Reload the page for another.</p>);
    });
  }
  root.render(
    <StrictMode>
      <App />
    </StrictMode>,
  );
}

main().catch((error: unknown) => {
  root.render(<p role="alert">{errorText(error)}</p>);
});
