import { Tabs } from "radix-ui";
import { useState } from "react";
import { BackupsView } from "./backup/BackupsView";
import { useBackupStream } from "./backup/useBackupStream";
import { ConnectionQuestions } from "./hosts/ConnectionQuestions";
import { MachineList } from "./hosts/MachineList";
import { useConnection, type Connection } from "./hosts/useConnection";
import { useWords } from "./i18n/LanguageContext";
import { SessionsView } from "./sessions/SessionsView";
import { useSessionStream } from "./sessions/useSessionStream";
import type { HostId } from "./sidecar/call";
import { Appearance } from "./ui/Appearance";
import { Boundary } from "./ui/Boundary";
import { ErrorBox } from "./ui/ErrorBox";

export function App() {
  const { text } = useWords();
  const [hostId, setHostId] = useState<HostId>(null);
  const connection = useConnection(hostId);
  return (
    <Tabs.Root className="app" defaultValue="sessions">
      <header className="top">
        <h1>{text.appName}</h1>
        <Tabs.List className="views" aria-label={text.appName}>
          <Tabs.Trigger value="sessions">{text.views.sessions}</Tabs.Trigger>
          <Tabs.Trigger value="backups">{text.views.backups}</Tabs.Trigger>
        </Tabs.List>
        <Appearance />
      </header>
      <aside className="side machines-side">
        <Boundary>
          <MachineList hostId={hostId} connection={connection} onChoose={setHostId} />
        </Boundary>
      </aside>
      {hostId !== null && <ConnectionQuestions connection={connection} />}
      {/* With another key it is another machine: what runs for the one before is cancelled. */}
      <Machine key={hostId ?? "this machine"} hostId={hostId} connection={connection} />
    </Tabs.Root>
  );
}

/** Both views stay, so that what runs in one goes on while the other is seen. */
function Machine({ hostId, connection }: { hostId: HostId; connection: Connection }) {
  const { text } = useWords();
  const sessions = useSessionStream(hostId);
  const backups = useBackupStream(hostId);
  const { state } = connection;
  if (hostId !== null && state.phase !== "connected" && sessions.phase === "idle" && backups.phase === "idle") {
    return (
      <main className="unconnected">
        {state.phase === "failed" && (
          <ErrorBox message={state.error} title={text.connection.failed}>
            <button type="button" className="button" onClick={connection.connect}>
              {text.retry}
            </button>
          </ErrorBox>
        )}
        {state.phase === "disconnected" && (
          <div className="empty">
            <p>{text.connection.disconnected}</p>
            <button type="button" className="button primary" onClick={connection.connect}>
              {text.connect}
            </button>
          </div>
        )}
        {state.phase === "connecting" && <p className="empty">{text.connection.connecting}</p>}
      </main>
    );
  }
  return (
    <main className="views-place">
      <Tabs.Content value="sessions" className="sessions-view" forceMount tabIndex={-1}>
        <Boundary>
          <SessionsView hostId={hostId} stream={sessions} />
        </Boundary>
      </Tabs.Content>
      <Tabs.Content value="backups" className="backups-place" forceMount tabIndex={-1}>
        <Boundary>
          <BackupsView hostId={hostId} stream={backups} />
        </Boundary>
      </Tabs.Content>
    </main>
  );
}
