import type { HostId } from "../sidecar/call";
import { count, size } from "../format";
import { AgentItem } from "./AgentItem";
import { useSessionStream, type SessionStream } from "./useSessionStream";

/** Analyses the sessions of one machine, and shows each agent from its first chunk on. */
export function SessionPanel({ hostId }: { hostId: HostId }) {
  const stream = useSessionStream(hostId);
  const { view, phase, error } = stream;
  const running = phase === "running" || phase === "cancelling";
  return (
    <section aria-labelledby="sessions-title" aria-busy={running}>
      <h2 id="sessions-title">Sessions</h2>
      <p className="actions">
        <button
          type="button"
          onClick={() => {
            stream.start();
          }}
        >
          {running ? "Start again" : "Analyse"}
        </button>
        <button type="button" onClick={stream.cancel} disabled={phase !== "running"}>
          Cancel
        </button>
        <span role="status" data-phase={phase}>
          {statusOf(stream)}
        </span>
      </p>
      {error !== null && <p role="alert">{error}</p>}
      <ul className="agents" aria-label="Agents">
        {view.agents.map((agent) => (
          <AgentItem key={agent.agent} agent={agent} />
        ))}
      </ul>
      {view.failedItems > 0 && (
        <details className="failures">
          <summary>{count(view.failedItems)} could not be read</summary>
          <ul>
            {view.failures.map((failure) => (
              <li key={failure.path}>
                {failure.path}: {failure.error}
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

function statusOf({ phase, view }: SessionStream): string {
  const soFar = `${count(view.totalSessions)} sessions of ${count(view.agents.length)} agents, ${size(view.totalSizeBytes)}`;
  switch (phase) {
    case "idle":
      return "Not analysed yet";
    case "running":
      return `Analysing: ${soFar}`;
    case "cancelling":
      return `Cancelling: ${soFar}`;
    case "done":
      return `Done: ${soFar}`;
    case "cancelled":
      return `Cancelled: ${soFar}`;
    case "failed":
      return `Failed: ${soFar}`;
  }
}
