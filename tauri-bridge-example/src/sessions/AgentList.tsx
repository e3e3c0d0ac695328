import { memo } from "react";
import { useWords } from "../i18n/LanguageContext";
import type { AgentView, SessionsView } from "./sessionModel";
import { CATEGORIES } from "./sessionOrder";

/** An agent's name; null is all of them. */
export type AgentChoice = string | null;

interface Props {
  view: SessionsView;
  chosen: AgentChoice;
  onChoose: (agent: AgentChoice) => void;
}

type Counters = Pick<
  AgentView,
  "totalFiles" | "agentFilesTotal" | "totalSizeBytes" | "emptyCount" | "lowValueCount" | "valuableCount"
>;

const COUNTERS = { valuable: "valuableCount", low_value: "lowValueCount", empty: "emptyCount" } as const;

/** Each agent from its first chunk on, with counters that move. */
export function AgentList({ view, chosen, onChoose }: Props) {
  const { text } = useWords();
  return (
    <nav aria-labelledby="agents-title">
      <div className="side-title">
        <h2 id="agents-title">{text.agents}</h2>
      </div>
      <ul className="agents" aria-label={text.agents}>
        {view.agents.length > 0 && (
          <li>
            <AgentButton
              name={text.allAgents}
              counters={sumOf(view)}
              current={chosen === null}
              choose={null}
              onChoose={onChoose}
            />
          </li>
        )}
        {view.agents.map((agent) => (
          <li key={agent.agent} data-agent={agent.agent} data-done={agent.done}>
            <AgentButton
              name={agent.agent}
              counters={agent}
              current={chosen === agent.agent}
              choose={agent.agent}
              onChoose={onChoose}
            />
          </li>
        ))}
      </ul>
    </nav>
  );
}

interface ButtonProps {
  name: string;
  counters: Counters;
  current: boolean;
  choose: AgentChoice;
  onChoose: (agent: AgentChoice) => void;
}

/** Rendered anew only when something of that agent has come. */
const AgentButton = memo(function AgentButton({ name, counters, current, choose, onChoose }: ButtonProps) {
  const { text, count, counted, size } = useWords();
  const known = Math.max(counters.agentFilesTotal, counters.totalFiles, 1);
  return (
    <button
      type="button"
      className="agent"
      aria-current={current}
      onClick={() => {
        onChoose(choose);
      }}
    >
      <span className="agent-head">
        <span className="agent-name">{name}</span>
        <span className="agent-size" data-count="size">
          {size(counters.totalSizeBytes)}
        </span>
      </span>
      <span className="bar" aria-hidden>
        {CATEGORIES.map((category) => (
          <span
            key={category}
            data-category={category}
            style={{ transform: `scaleX(${String(widthUpTo(category, counters) / known)})` }}
          />
        ))}
      </span>
      {/* Two lines from the beginning, for all that the numbers may become. */}
      <span className="agent-total" data-count="total">
        {counters.totalFiles < counters.agentFilesTotal
          ? text.ofTotal(count(counters.totalFiles), count(counters.agentFilesTotal))
          : text.sessions(counted(counters.totalFiles))}
      </span>
      <span className="agent-counts">
        {CATEGORIES.map((category) => (
          <span key={category} className="counted" data-category={category} title={text.categories[category]}>
            <span className="sr-only">{text.categories[category]} </span>
            <span data-count={category}>{count(counters[COUNTERS[category]])}</span>
          </span>
        ))}
      </span>
    </button>
  );
});

/** The bars lie over each other, the widest at the bottom. */
function widthUpTo(category: (typeof CATEGORIES)[number], counters: Counters): number {
  const index = CATEGORIES.indexOf(category);
  return CATEGORIES.slice(0, index + 1).reduce((sum, name) => sum + counters[COUNTERS[name]], 0);
}

function sumOf({ agents }: SessionsView): Counters {
  const sum = (name: keyof Counters) => agents.reduce((total, agent) => total + agent[name], 0);
  return {
    totalFiles: sum("totalFiles"),
    agentFilesTotal: sum("agentFilesTotal"),
    totalSizeBytes: sum("totalSizeBytes"),
    emptyCount: sum("emptyCount"),
    lowValueCount: sum("lowValueCount"),
    valuableCount: sum("valuableCount"),
  };
}
