import { useMemo, useState } from "react";
import type { SessionAnalysis } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";
import { callOn, errorText, type HostId } from "../sidecar/call";
import { ErrorBox } from "../ui/ErrorBox";
import { Question } from "../ui/Question";
import { SessionDetails } from "../preview/SessionDetails";
import { AgentList, type AgentChoice } from "./AgentList";
import { AnalysisBar } from "./AnalysisBar";
import { FilterBar } from "./FilterBar";
import { isDeletable, keyOf, type Selection } from "./selection";
import { NO_FILTER, SessionOrder, type SessionFilter, type SessionSort } from "./sessionOrder";
import { SessionTable } from "./SessionTable";
import type { SessionStream } from "./useSessionStream";

const FIRST_SORT: SessionSort = { key: "ageDays", descending: false };
const NONE: Selection = new Map();

interface Props {
  hostId: HostId;
  stream: SessionStream;
}

/** The sessions of one machine: the table of those that are chosen, and the details of one. */
export function SessionsView({ hostId, stream }: Props) {
  const { text, count, size } = useWords();
  const { view, phase, error, kind } = stream;
  const running = phase === "running" || phase === "cancelling";
  const [chosen, setChosen] = useState<AgentChoice>(null);
  const [filter, setFilter] = useState<SessionFilter>(NO_FILTER);
  const [sort, setSort] = useState(FIRST_SORT);
  const [selection, setSelection] = useState(NONE);
  const [open, setOpen] = useState<SessionAnalysis | null>(null);
  const [asked, setAsked] = useState<Selection>(NONE);
  const [deleteError, setDeleteError] = useState<string | null>(null);

  const rows = useRows(stream, chosen, sort, filter);
  const chosenSize = [...selection.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const place = hostId === null ? text.here : hostId;

  async function deleteThem(sessions: Selection) {
    setAsked(NONE);
    setDeleteError(null);
    try {
      for (const agentId of new Set(Array.from(sessions.values(), ({ agent }) => agent))) {
        const those = [...sessions.values()].filter(({ agent }) => agent === agentId);
        await callOn(hostId, "delete_sessions_by_ids", {
          agentId,
          sessionIds: those.map(({ sessionId }) => sessionId),
        });
        stream.remove(those);
        if (open !== null && those.includes(open)) setOpen(null);
      }
      setSelection(NONE);
    } catch (reason) {
      setDeleteError(errorText(reason));
      setSelection(NONE);
      // The message doesn't say for each whether it is gone.
      stream.analyse();
    }
  }
  const ask = (sessions: Selection) => {
    if (!running) setAsked(sessions);
  };
  return (
    <>
      <aside className="side agents-side">
        <AgentList
          view={view}
          chosen={chosen}
          onChoose={(agent) => {
            setChosen(agent);
            setSelection(NONE);
          }}
        />
      </aside>
      <section className="middle" aria-labelledby="sessions-title" aria-busy={running}>
        <h2 id="sessions-title" className="sr-only">
          {text.views.sessions}
        </h2>
        <AnalysisBar stream={stream} />
        {error !== null && (
          <ErrorBox message={error} kind={kind} title={text.phase.failed}>
            {view.totalSessions > 0 && <p>{text.incomplete}</p>}
            <button type="button" className="button" onClick={stream.analyse}>
              {text.retry}
            </button>
          </ErrorBox>
        )}
        {deleteError !== null && <ErrorBox message={deleteError} />}
        <Failures stream={stream} />
        {view.totalSessions > 0 ? (
          <>
            <FilterBar
              filter={filter}
              onFilter={(changed) => {
                setFilter(changed);
                setSelection(NONE);
              }}
            />
            <SessionTable
              rows={rows}
              sort={sort}
              onSort={setSort}
              selection={selection}
              onSelect={setSelection}
              open={open && keyOf(open)}
              onOpen={setOpen}
              onDelete={() => {
                ask(selection);
              }}
            />
            {rows.length === 0 && !running && (
              <div className="empty">
                <h3>{text.noMatch}</h3>
                <p>{text.noMatchAbout}</p>
                <button
                  type="button"
                  className="button"
                  onClick={() => {
                    setFilter(NO_FILTER);
                  }}
                >
                  {text.clearFilters}
                </button>
              </div>
            )}
            <footer className="selection">
              <span data-count="shown">{text.shown(count(rows.length))}</span>
              <span className="grow">
                {selection.size > 0 && text.selected(count(selection.size), size(chosenSize))}
              </span>
              <button
                type="button"
                className="button danger"
                disabled={selection.size === 0 || running}
                title={running ? text.deleteWhileRunning : undefined}
                onClick={() => {
                  ask(selection);
                }}
              >
                {text.deleteSelected}
              </button>
            </footer>
          </>
        ) : (
          <div className="empty">
            {phase === "done" && (
              <>
                <h3>{text.noSessions}</h3>
                <p>{text.noSessionsAbout}</p>
              </>
            )}
            {(phase === "idle" || phase === "cancelled") && (
              <>
                <h3>{text.notAnalysed}</h3>
                <p>{text.notAnalysedAbout(place)}</p>
              </>
            )}
          </div>
        )}
      </section>
      <SessionDetails
        key={open && keyOf(open)}
        hostId={hostId}
        session={open}
        deletable={open !== null && isDeletable(open) && !running}
        onDelete={(session) => {
          ask(new Map([[keyOf(session), session]]));
        }}
        onClose={() => {
          setOpen(null);
        }}
      />
      {asked.size > 0 && (
        <DeleteQuestion
          sessions={asked}
          onAccept={() => void deleteThem(asked)}
          onRefuse={() => {
            setAsked(NONE);
          }}
        />
      )}
    </>
  );
}

/** The sessions that are shown; what comes is merged into what there is. */
function useRows({ view }: SessionStream, chosen: AgentChoice, sort: SessionSort, filter: SessionFilter) {
  const sessions = useMemo(
    () => view.agents.flatMap((agent) => (chosen === null || agent.agent === chosen ? agent.sessions : [])),
    [view.agents, chosen],
  );
  const order = useMemo(() => new SessionOrder(sort, filter), [sort, filter]);
  return useMemo(() => order.rowsOf(sessions), [order, sessions]);
}

function DeleteQuestion(props: { sessions: Selection; onAccept: () => void; onRefuse: () => void }) {
  const { text, counted, size } = useWords();
  const sessions = [...props.sessions.values()];
  const valuable = sessions.filter(({ category }) => category === "valuable").length;
  return (
    <Question
      danger
      title={text.deleteQuestion(counted(sessions.length))}
      about={text.deleteAbout(size(sessions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)))}
      accept={text.delete}
      refuse={text.keepThem}
      onAccept={props.onAccept}
      onRefuse={props.onRefuse}
    >
      {valuable > 0 && <p className="warning">{text.deleteValuable(counted(valuable))}</p>}
      {sessions.length === 1 && (
        <p>
          <code>{sessions[0]!.sessionId}</code>
        </p>
      )}
    </Question>
  );
}

function Failures({ stream: { view } }: { stream: SessionStream }) {
  const { text, count } = useWords();
  if (view.failedItems === 0) return null;
  return (
    <details className="notice failures">
      <summary>{text.unread(count(view.failedItems))}</summary>
      <ul>
        {view.failures.map(({ path, error }) => (
          <li key={path}>
            <code>{path}</code>: {error}
          </li>
        ))}
        {view.failedItems > view.failures.length && (
          <li>{text.more(count(view.failedItems - view.failures.length))}</li>
        )}
      </ul>
    </details>
  );
}
