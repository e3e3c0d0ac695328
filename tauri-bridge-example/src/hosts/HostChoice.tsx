import { useCallback, useId } from "react";
import { call, type HostId } from "../sidecar/call";
import { useAnswer } from "../sidecar/useAnswer";

const listHosts = () => call("list_ssh_hosts", {});

interface Props {
  hostId: HostId;
  onChoose: (hostId: HostId) => void;
}

/** This machine, or one of the hosts that the app knows. */
export function HostChoice({ hostId, onChoose }: Props) {
  const hosts = useAnswer(listHosts);
  const labelId = useId();
  return (
    <div className="hosts">
      <label htmlFor={labelId}>Machine</label>
      <select
        id={labelId}
        value={hostId ?? ""}
        onChange={({ target }) => {
          onChoose(target.value || null);
        }}
      >
        <option value="">This machine</option>
        {hosts.value?.map((host) => (
          <option key={host.id} value={host.id}>
            {host.label} ({host.id})
          </option>
        ))}
      </select>
      {hosts.error !== null && <span role="alert">{hosts.error}</span>}
      {hostId !== null && <HostConnection key={hostId} hostId={hostId} />}
    </div>
  );
}

/** Connects as soon as a host is chosen: the errors of that say what to ask the user for. */
function HostConnection({ hostId }: { hostId: string }) {
  const connected = useAnswer(useCallback(() => call("ssh_connect", { hostId }), [hostId]));
  if (connected.error !== null) return <span role="alert">{connected.error}</span>;
  return <span role="status">{connected.value ? "connected" : "connecting …"}</span>;
}
