import { Dialog } from "radix-ui";
import { useState } from "react";
import { useWords } from "../i18n/LanguageContext";
import { Question } from "../ui/Question";
import type { Connection } from "./useConnection";

/** What has to be asked before there is a connection. */
export function ConnectionQuestions({ connection }: { connection: Connection }) {
  const { text } = useWords();
  const { state } = connection;
  if (state.phase === "trust") {
    return (
      <Question
        title={text.trust.title(state.host)}
        about={text.trust.about}
        accept={text.trust.accept}
        refuse={text.trust.refuse}
        onAccept={() => {
          connection.trust(state.fingerprint);
        }}
        onRefuse={connection.refuse}
      >
        <p>
          <code className="fingerprint">{state.fingerprint}</code>
        </p>
        <p>{text.trust.how}</p>
        <p>
          <code>ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub</code>
        </p>
      </Question>
    );
  }
  return state.phase === "passphrase" && <PassphraseQuestion connection={connection} wrong={state.wrong} />;
}

function PassphraseQuestion({ connection, wrong }: { connection: Connection; wrong: boolean }) {
  const { text } = useWords();
  const [passphrase, setPassphrase] = useState("");
  return (
    <Dialog.Root
      open
      onOpenChange={(open) => {
        if (!open) connection.refuse();
      }}
    >
      <Dialog.Portal>
        <Dialog.Overlay className="overlay" />
        <Dialog.Content className="dialog">
          <Dialog.Title>{text.passphrase.title}</Dialog.Title>
          <Dialog.Description>{text.passphrase.about}</Dialog.Description>
          {wrong && <p role="alert">{text.passphrase.wrong}</p>}
          <form
            onSubmit={(event) => {
              event.preventDefault();
              connection.unlock(passphrase);
            }}
          >
            <label className="field">
              <span>{text.passphrase.label}</span>
              <input
                type="password"
                autoComplete="off"
                value={passphrase}
                onChange={({ target }) => {
                  setPassphrase(target.value);
                }}
              />
            </label>
            <div className="dialog-actions">
              <Dialog.Close className="button">{text.cancel}</Dialog.Close>
              <button type="submit" className="button primary" disabled={passphrase === ""}>
                {text.passphrase.unlock}
              </button>
            </div>
          </form>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}
