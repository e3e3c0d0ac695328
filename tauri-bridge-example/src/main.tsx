import { isTauri } from "@tauri-apps/api/core";
import { StrictMode, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import "./App.css";
import { LanguageProvider, useWords } from "./i18n/LanguageContext";
import { errorText } from "./sidecar/call";
import { Boundary } from "./ui/Boundary";

const root = createRoot(document.getElementById("root")!);

async function main(): Promise<void> {
  // The build for Tauri has nothing of it: the mode is a constant there.
  if (import.meta.env.MODE === "browser" && !isTauri()) {
    const { connectToRelay } = await import("./browser/relay");
    await connectToRelay((reason) => {
      render(<Gone reason={reason} />);
    });
  }
  render(<App />);
}

function render(content: ReactNode): void {
  root.render(
    <StrictMode>
      <LanguageProvider>
        <Boundary>{content}</Boundary>
      </LanguageProvider>
    </StrictMode>,
  );
}

function Gone({ reason }: { reason: string }) {
  const { text } = useWords();
  return (
    <p role="alert" className="gone">
      {text.sidecarGone(reason)}
    </p>
  );
}

main().catch((error: unknown) => {
  render(
    <p role="alert" className="gone">
      {errorText(error)}
    </p>,
  );
});
