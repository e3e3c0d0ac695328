import { Trash2, X } from "lucide-react";
import type { SessionAnalysis } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";
import type { HostId } from "../sidecar/call";
import { CategoryCell, Marks } from "../sessions/SessionTable";
import { Preview } from "./Preview";

interface Props {
  hostId: HostId;
  session: SessionAnalysis | null;
  deletable: boolean;
  onDelete: (session: SessionAnalysis) => void;
  onClose: () => void;
}

/** What is known of one session, and its messages. */
export function SessionDetails({ hostId, session, deletable, onDelete, onClose }: Props) {
  const { text, age, count, size, time } = useWords();
  if (session === null) {
    return (
      <aside className="details" aria-label={text.details}>
        <p className="empty">{text.noneOpen}</p>
      </aside>
    );
  }
  const facts: [string, string][] = [
    [
      text.facts.messages,
      `${count(session.messageCount)} (${text.facts.bySide(count(session.userMessageCount), count(session.assistantMessageCount))})`,
    ],
    [text.facts.size, size(session.sizeBytes)],
    [text.facts.lastActivity, session.lastActivity === null ? text.none : time(session.lastActivity)],
    [text.facts.age, age(session.ageDays)],
    [text.facts.model, session.model ?? text.none],
    [text.facts.tokens, session.totalTokens === 0 ? text.none : count(session.totalTokens)],
    [text.facts.file, session.filePath],
  ];
  if (session.headerId !== null && session.headerId !== session.sessionId) {
    facts.push([text.facts.headerId, session.headerId]);
  }
  if (session.skippedLines > 0) facts.push([text.facts.skippedLines, count(session.skippedLines)]);
  return (
    <aside className="details" aria-label={text.details}>
      <header className="details-head">
        <h2>
          <code title={session.sessionId}>{session.sessionId}</code>
        </h2>
        <button
          type="button"
          className="icon-button"
          aria-label={text.delete}
          title={deletable ? text.delete : session.store === "sqlite" ? text.onlyOpenClaw : undefined}
          disabled={!deletable}
          onClick={() => {
            onDelete(session);
          }}
        >
          <Trash2 aria-hidden size={16} />
        </button>
        <button type="button" className="icon-button" aria-label={text.close} title={text.close} onClick={onClose}>
          <X aria-hidden size={16} />
        </button>
      </header>
      <p className="details-marks">
        <CategoryCell session={session} />
        <Marks session={session} full />
        <span className="muted">{session.agent}</span>
      </p>
      <dl className="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd title={value}>{value}</dd>
          </div>
        ))}
      </dl>
      <Preview hostId={hostId} agentId={session.agent} sessionId={session.sessionId} />
    </aside>
  );
}
