import { EllipsisVertical, Monitor, Plus, Server } from "lucide-react";
import { DropdownMenu } from "radix-ui";
import { useCallback, useState } from "react";
import type { SshHost } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";
import { call, type HostId } from "../sidecar/call";
import { useAnswer } from "../sidecar/useAnswer";
import { ErrorBox } from "../ui/ErrorBox";
import { Question } from "../ui/Question";
import { AddHost } from "./AddHost";
import type { Connection } from "./useConnection";

interface Props {
  hostId: HostId;
  connection: Connection;
  onChoose: (hostId: HostId) => void;
}

/** This machine and the hosts that the app knows. */
export function MachineList({ hostId, connection, onChoose }: Props) {
  const { text } = useWords();
  const [changes, setChanges] = useState(0);
  const hosts = useAnswer(
    // eslint-disable-next-line react-hooks/exhaustive-deps -- a change makes it another question
    useCallback(() => call("list_ssh_hosts", {}), [changes]),
  );
  const [adding, setAdding] = useState(false);
  const [removing, setRemoving] = useState<SshHost | null>(null);
  return (
    <nav aria-labelledby="machines-title">
      <div className="side-title">
        <h2 id="machines-title">{text.machines}</h2>
        <button
          type="button"
          className="icon-button"
          aria-label={text.addHost}
          title={text.addHost}
          onClick={() => {
            setAdding(true);
          }}
        >
          <Plus aria-hidden size={16} />
        </button>
      </div>
      <ul className="machines">
        <li>
          <button
            type="button"
            className="machine"
            aria-current={hostId === null}
            onClick={() => {
              onChoose(null);
            }}
          >
            <Monitor aria-hidden size={16} />
            <span className="machine-name">{text.thisMachine}</span>
          </button>
        </li>
        {hosts.value?.map((host) => (
          <li key={host.id}>
            <button
              type="button"
              className="machine"
              data-host={host.id}
              aria-current={hostId === host.id}
              onClick={() => {
                onChoose(host.id);
              }}
            >
              <Server aria-hidden size={16} />
              <span className="machine-name">{host.label}</span>
              {hostId === host.id && <ConnectionMark phase={connection.state.phase} />}
            </button>
            <DropdownMenu.Root>
              <DropdownMenu.Trigger className="icon-button" aria-label={text.hostActions(host.label)}>
                <EllipsisVertical aria-hidden size={16} />
              </DropdownMenu.Trigger>
              <DropdownMenu.Portal>
                <DropdownMenu.Content className="menu" align="start">
                  <DropdownMenu.Item
                    className="menu-item"
                    disabled={hostId !== host.id || connection.state.phase !== "connected"}
                    onSelect={connection.disconnect}
                  >
                    {text.disconnect}
                  </DropdownMenu.Item>
                  <DropdownMenu.Item
                    className="menu-item"
                    onSelect={() => {
                      setRemoving(host);
                    }}
                  >
                    {text.removeHost}
                  </DropdownMenu.Item>
                </DropdownMenu.Content>
              </DropdownMenu.Portal>
            </DropdownMenu.Root>
          </li>
        ))}
      </ul>
      {hosts.error !== null && <ErrorBox message={hosts.error} />}
      {adding && (
        <AddHost
          onClose={() => {
            setAdding(false);
          }}
          onAdded={(host) => {
            setAdding(false);
            setChanges(changes + 1);
            onChoose(host.id);
          }}
        />
      )}
      {removing !== null && (
        <Question
          danger
          title={text.removeHostQuestion(removing.label)}
          about={text.removeHostAbout}
          accept={text.removeHost}
          onRefuse={() => {
            setRemoving(null);
          }}
          onAccept={() => {
            setRemoving(null);
            if (hostId === removing.id) onChoose(null);
            const listAgain = () => {
              setChanges(changes + 1);
            };
            // If it can't be removed, the list says why.
            call("delete_ssh_host", { hostId: removing.id }).then(listAgain, listAgain);
          }}
        />
      )}
    </nav>
  );
}

function ConnectionMark({ phase }: { phase: Connection["state"]["phase"] }) {
  const { text } = useWords();
  const words = text.connection[phase === "trust" || phase === "passphrase" ? "asking" : phase];
  return (
    <span className="connection" data-connection={phase}>
      {words}
    </span>
  );
}
