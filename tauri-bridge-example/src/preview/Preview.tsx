import { useVirtualizer } from "@tanstack/react-virtual";
import { useRef, useState, type KeyboardEvent } from "react";
import type { PreviewMessage } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";
import type { HostId } from "../sidecar/call";
import { ErrorBox } from "../ui/ErrorBox";
import { messageAt, type Page } from "./previewModel";
import { usePreviewStream, type PreviewStream } from "./usePreviewStream";

const ESTIMATED_MESSAGE_PX = 96;
const OVERSCAN_MESSAGES = 4;
/** Of a longer message its beginning is shown, until the user wants all of it. */
const SHOWN_CHARS = 1_200;

interface Props {
  hostId: HostId;
  agentId: string;
  sessionId: string;
}

/** The messages of a session, page by page as they are read. */
export function Preview({ hostId, agentId, sessionId }: Props) {
  const { text } = useWords();
  const stream = usePreviewStream(hostId, agentId, sessionId);
  const { phase, error, kind, view } = stream;
  const running = phase === "running" || phase === "cancelling";
  return (
    <section className="preview" aria-labelledby="preview-title" aria-busy={running}>
      <div className="bar-row">
        <h3 id="preview-title">{text.conversation}</h3>
        <PreviewStatus stream={stream} />
        {running && !view.full && (
          <button type="button" className="button small" onClick={stream.cancel}>
            {text.stop}
          </button>
        )}
        {phase === "cancelled" && (
          <button type="button" className="button small" onClick={stream.start}>
            {text.readAgain}
          </button>
        )}
      </div>
      {error !== null && (
        <ErrorBox message={error} kind={kind}>
          {view.totalMessages > 0 && <p>{text.incomplete}</p>}
          <button type="button" className="button" onClick={stream.start}>
            {text.retry}
          </button>
        </ErrorBox>
      )}
      <Messages pages={view.pages} count={view.totalMessages} />
    </section>
  );
}

function PreviewStatus({ stream: { phase, view } }: { stream: PreviewStream }) {
  const { text, count, counted } = useWords();
  const soFar = count(view.totalMessages);
  let said = "";
  if (view.full) said = text.messagesFull(soFar);
  else if (phase === "running" || phase === "cancelling") said = text.reading(soFar);
  else if (phase === "cancelled") said = text.messagesCancelled(soFar);
  else if (phase === "done")
    said = view.totalMessages === 0 ? text.noMessages : text.messages(counted(view.totalMessages));
  return (
    <span className="status muted" data-phase={phase}>
      {said}
    </span>
  );
}

function Messages({ pages, count }: { pages: readonly Page[]; count: number }) {
  const { text } = useWords();
  const scroller = useRef<HTMLDivElement>(null);
  const [whole, setWhole] = useState<ReadonlySet<number>>(new Set());
  // eslint-disable-next-line react-hooks/incompatible-library -- nothing here is memoized by it
  const virtualizer = useVirtualizer({
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => ESTIMATED_MESSAGE_PX,
    overscan: OVERSCAN_MESSAGES,
  });
  // By the browser's own rule an end that is measured only when it comes into sight is never reached.
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Home") virtualizer.scrollToIndex(0);
    else if (event.key === "End") virtualizer.scrollToIndex(count - 1, { align: "end" });
    else return;
    event.preventDefault();
  };
  return (
    <div
      ref={scroller}
      className="messages"
      tabIndex={0}
      role="group"
      aria-label={text.conversation}
      onKeyDown={onKeyDown}
    >
      <ol style={{ height: virtualizer.getTotalSize() }}>
        {virtualizer.getVirtualItems().map(({ index, start }) => (
          <li
            key={index}
            ref={virtualizer.measureElement}
            data-index={index}
            aria-setsize={count}
            aria-posinset={index + 1}
            style={{ transform: `translateY(${String(start)}px)` }}
          >
            <Message
              number={index}
              message={messageAt(pages, index)}
              whole={whole.has(index)}
              onWhole={(shown) => {
                const next = new Set(whole);
                if (shown) next.add(index);
                else next.delete(index);
                setWhole(next);
              }}
            />
          </li>
        ))}
      </ol>
    </div>
  );
}

interface MessageProps {
  number: number;
  message: PreviewMessage;
  whole: boolean;
  onWhole: (whole: boolean) => void;
}

function Message({ number, message: { role, content }, whole, onWhole }: MessageProps) {
  const { text, count } = useWords();
  const long = content.length > SHOWN_CHARS;
  return (
    <article className="message" data-role={role}>
      <h4>
        <span>{text.roles[role] ?? role}</span>
        <span className="muted">{count(number + 1)}</span>
      </h4>
      {content === "" ? (
        <p className="muted">{text.noText}</p>
      ) : (
        <p className="content">{long && !whole ? `${content.slice(0, SHOWN_CHARS)} …` : content}</p>
      )}
      {long && (
        <button
          type="button"
          className="link"
          onClick={() => {
            onWhole(!whole);
          }}
        >
          {whole ? text.showLess : text.showAll(count(content.length))}
        </button>
      )}
    </article>
  );
}
