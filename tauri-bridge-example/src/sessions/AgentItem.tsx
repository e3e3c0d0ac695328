import { memo, useState } from "react";
import type { SessionAnalysis } from "../../../protocol/types";
import { count, size } from "../format";
import type { AgentView } from "./sessionModel";

const SHOWN_AT_ONCE = 100;

/** One agent's counters, and its sessions when it is opened; rendered anew only when something of it has come. */
export const AgentItem = memo(function AgentItem({ agent }: { agent: AgentView }) {
  const [open, setOpen] = useState(false);
  return (
    <li data-agent={agent.agent} data-done={agent.done}>
      <details
        open={open}
        onToggle={({ currentTarget }) => {
          setOpen(currentTarget.open);
        }}
      >
        <summary>
          <strong>{agent.agent}</strong>
          <progress value={agent.totalFiles} max={Math.max(agent.agentFilesTotal, agent.totalFiles, 1)} />
          <span data-count="total">
            {count(agent.totalFiles)} of {count(agent.agentFilesTotal)}
          </span>
          <span data-count="valuable">{count(agent.valuableCount)} valuable</span>
          <span data-count="low_value">{count(agent.lowValueCount)} of low value</span>
          <span data-count="empty">{count(agent.emptyCount)} empty</span>
          <span data-count="size">{size(agent.totalSizeBytes)}</span>
        </summary>
        {open && <Sessions sessions={agent.sessions} />}
      </details>
    </li>
  );
});

function Sessions({ sessions }: { sessions: readonly SessionAnalysis[] }) {
  const [shown, setShown] = useState(SHOWN_AT_ONCE);
  return (
    <>
      <table>
        <thead>
          <tr>
            <th>Session</th>
            <th>Messages</th>
            <th>Size</th>
            <th>Age</th>
            <th>Model</th>
            <th>Category</th>
          </tr>
        </thead>
        <tbody>
          {sessions.slice(0, shown).map((session) => (
            <tr key={session.sessionId}>
              <td>{session.sessionId}</td>
              <td>{count(session.messageCount)}</td>
              <td>{size(session.sizeBytes)}</td>
              <td>{count(Math.floor(session.ageDays))} d</td>
              <td>{session.model}</td>
              <td>{session.category}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {sessions.length > shown && (
        <button
          type="button"
          onClick={() => {
            setShown(shown + SHOWN_AT_ONCE);
          }}
        >
          {count(sessions.length - shown)} more
        </button>
      )}
    </>
  );
}
