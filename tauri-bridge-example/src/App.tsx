import { useState } from "react";
import { BackupPanel } from "./backup/BackupPanel";
import { HostChoice } from "./hosts/HostChoice";
import { SessionPanel } from "./sessions/SessionPanel";
import type { HostId } from "./sidecar/call";

export function App() {
  const [hostId, setHostId] = useState<HostId>(null);
  // With another key the panels are others: what runs for the host before is cancelled.
  const key = hostId ?? "this machine";
  return (
    <>
      <header>
        <h1>OpenClaw sessions</h1>
        <HostChoice hostId={hostId} onChoose={setHostId} />
      </header>
      <main>
        <SessionPanel key={`sessions of ${key}`} hostId={hostId} />
        <BackupPanel key={`backups of ${key}`} hostId={hostId} />
      </main>
    </>
  );
}
