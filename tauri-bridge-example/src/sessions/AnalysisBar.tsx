import { useWords } from "../i18n/LanguageContext";
import type { SessionStream } from "./useSessionStream";

/** Starts and cancels an analysis, and says how far it is. */
export function AnalysisBar({ stream }: { stream: SessionStream }) {
  const { text, counted, size } = useWords();
  const { phase, view } = stream;
  const running = phase === "running" || phase === "cancelling";
  return (
    <div className="bar-row">
      {/* One place for both, so that what follows doesn't move, and focus stays. */}
      <button
        type="button"
        className={running ? "button wide" : "button primary wide"}
        disabled={phase === "cancelling"}
        onClick={running ? stream.cancel : stream.analyse}
      >
        {running ? text.cancel : phase === "idle" ? text.analyse : text.analyseAgain}
      </button>
      <span className="status" data-phase={phase}>
        <span className="phase">{text.phase[phase]}</span>
        {phase !== "idle" && (
          <span className="so-far">
            {text.soFar(counted(view.totalSessions), counted(view.agents.length), size(view.totalSizeBytes))}
          </span>
        )}
      </span>
      {/* Said once for each phase: counters that move would never let a screen reader end. */}
      <span role="status" className="sr-only">
        {text.phase[phase]}
        {!running &&
          phase !== "idle" &&
          `: ${text.soFar(counted(view.totalSessions), counted(view.agents.length), size(view.totalSizeBytes))}`}
      </span>
    </div>
  );
}
