import { Dialog } from "radix-ui";
import { useId, useState } from "react";
import type { SshHost } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";
import { call, errorText } from "../sidecar/call";
import { useAnswer } from "../sidecar/useAnswer";
import { ErrorBox } from "../ui/ErrorBox";

const suggestHosts = () => call("list_ssh_config_hosts", {});
const METHODS: readonly SshHost["authMethod"][] = ["key", "ssh_config", "password"];

interface Props {
  onAdded: (host: SshHost) => void;
  onClose: () => void;
}

export function AddHost({ onAdded, onClose }: Props) {
  const { text } = useWords();
  const words = text.hostForm;
  const suggestions = useAnswer(suggestHosts);
  const listId = useId();
  const [method, setMethod] = useState<SshHost["authMethod"]>("key");
  const [error, setError] = useState<string | null>(null);

  async function add(form: FormData) {
    const written = (name: string) => (form.get(name) as string | null) ?? "";
    const field = (name: string) => written(name).trim();
    try {
      const host = await call("upsert_ssh_host", {
        host: {
          label: field("label") || field("host"),
          host: field("host"),
          port: Number(field("port")),
          username: field("username"),
          authMethod: method,
          ...(method === "key" && field("keyPath") && { keyPath: field("keyPath") }),
          ...(method === "password" && { password: written("password") }),
        },
      });
      onAdded(host);
    } catch (reason) {
      setError(errorText(reason));
    }
  }

  return (
    <Dialog.Root
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
    >
      <Dialog.Portal>
        <Dialog.Overlay className="overlay" />
        <Dialog.Content className="dialog">
          <Dialog.Title>{words.title}</Dialog.Title>
          <Dialog.Description>{words.about}</Dialog.Description>
          {error !== null && <ErrorBox message={error} />}
          <form
            className="fields"
            onSubmit={(event) => {
              event.preventDefault();
              void add(new FormData(event.currentTarget));
            }}
          >
            <label className="field">
              <span>{words.host}</span>
              <input name="host" required list={listId} autoComplete="off" spellCheck={false} />
            </label>
            <datalist id={listId}>
              {suggestions.value?.map(({ hostAlias }) => (
                <option key={hostAlias} value={hostAlias} />
              ))}
            </datalist>
            <label className="field">
              <span>{words.label}</span>
              <input name="label" autoComplete="off" />
            </label>
            <label className="field">
              <span>{words.username}</span>
              <input name="username" required={method !== "ssh_config"} autoComplete="off" spellCheck={false} />
            </label>
            <label className="field">
              <span>{words.port}</span>
              <input name="port" type="number" min={1} max={65535} defaultValue={22} required />
            </label>
            <label className="field">
              <span>{words.authMethod}</span>
              <select
                value={method}
                onChange={({ target }) => {
                  setMethod(target.value as SshHost["authMethod"]);
                }}
              >
                {METHODS.map((name) => (
                  <option key={name} value={name}>
                    {words.authMethods[name]}
                  </option>
                ))}
              </select>
            </label>
            {method === "key" && (
              <label className="field">
                <span>{words.keyPath}</span>
                <input name="keyPath" placeholder={words.keyPathHint} autoComplete="off" spellCheck={false} />
              </label>
            )}
            {method === "password" && (
              <label className="field">
                <span>{words.password}</span>
                <input name="password" type="password" required autoComplete="off" />
              </label>
            )}
            <div className="dialog-actions">
              <Dialog.Close className="button">{text.cancel}</Dialog.Close>
              <button type="submit" className="button primary">
                {words.save}
              </button>
            </div>
          </form>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}
