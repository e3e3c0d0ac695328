import {
  createColumnHelper,
  rowSortingFeature,
  tableFeatures,
  useTable,
  type SortingState,
} from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { ArrowDown, ArrowUp } from "lucide-react";
import { useId, useMemo, useRef, useState, type KeyboardEvent } from "react";
import type { SessionAnalysis } from "../../../protocol/types";
import { useWords } from "../i18n/LanguageContext";
import { wordFor } from "../i18n/wordFor";
import type { SessionSort, SortKey } from "./sessionOrder";
import { isDeletable, keyOf, type Selection } from "./selection";

const ROW_PX = 32;
const OVERSCAN_ROWS = 8;

const features = tableFeatures({ rowSortingFeature });
const column = createColumnHelper<typeof features, SessionAnalysis>();
const columns = column.columns([
  column.accessor("sessionId", { cell: ({ row }) => <IdCell session={row.original} /> }),
  column.accessor("agent", { cell: ({ row }) => row.original.agent }),
  column.accessor("category", { cell: ({ row }) => <CategoryCell session={row.original} /> }),
  column.accessor("messageCount", {
    cell: ({ row }) => <Count value={row.original.messageCount} />,
    sortDescFirst: true,
  }),
  column.accessor("sizeBytes", { cell: ({ row }) => <Size value={row.original.sizeBytes} />, sortDescFirst: true }),
  column.accessor("ageDays", { cell: ({ row }) => <Age value={row.original.ageDays} />, sortDescFirst: false }),
  column.accessor("model", { cell: ({ row }) => row.original.model }),
]);
const NUMBERS = new Set(["messageCount", "sizeBytes", "ageDays"]);

interface Props {
  /** In the order in which they are shown: sorting so many again for each chunk is the model's work. */
  rows: readonly SessionAnalysis[];
  sort: SessionSort;
  onSort: (sort: SessionSort) => void;
  selection: Selection;
  onSelect: (selection: Selection) => void;
  /** The key of the session whose details are open. */
  open: string | null;
  onOpen: (session: SessionAnalysis) => void;
  onDelete: () => void;
}

/** A grid of which only the rows in sight exist. Arrows move, Enter opens, Space selects, Delete asks. */
export function SessionTable({ rows, sort, onSort, selection, onSelect, open, onOpen, onDelete }: Props) {
  const { text } = useWords();
  const scroller = useRef<HTMLDivElement>(null);
  const idPrefix = useId();
  const [active, setActive] = useState<SessionAnalysis | null>(null);
  // eslint-disable-next-line react-hooks/incompatible-library -- nothing here is memoized by it
  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: OVERSCAN_ROWS,
    scrollPaddingStart: ROW_PX,
  });
  const items = virtualizer.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const sorting: SortingState = [{ id: sort.key, desc: sort.descending }];
  const table = useTable({
    features,
    columns,
    data: rows.slice(first, first + items.length),
    manualSorting: true,
    enableSortingRemoval: false,
    enableMultiSort: false,
    state: { sorting },
    onSortingChange: (change) => {
      const [next] = typeof change === "function" ? change(sorting) : change;
      if (next !== undefined) onSort({ key: next.id as SortKey, descending: next.desc });
    },
    getRowId: keyOf,
  });
  const activeIndex = active === null ? -1 : rows.indexOf(active);
  const selectable = useMemo(() => rows.filter(isDeletable), [rows]);
  // What is selected is shown: another filter takes the selection back.
  const allSelected = selectable.length > 0 && selectable.length === selection.size;

  function moveTo(index: number) {
    const target = Math.min(Math.max(index, 0), rows.length - 1);
    const session = rows[target];
    if (session === undefined) return;
    setActive(session);
    virtualizer.scrollToIndex(target);
  }

  function toggle(session: SessionAnalysis) {
    if (!isDeletable(session)) return;
    const next = new Map(selection);
    if (!next.delete(keyOf(session))) next.set(keyOf(session), session);
    onSelect(next);
  }

  const toggleAll = () => {
    onSelect(allSelected ? new Map() : new Map(selectable.map((session) => [keyOf(session), session])));
  };

  function onKeyDown(event: KeyboardEvent) {
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / ROW_PX) - 2);
    const moves: Record<string, number> = {
      ArrowDown: activeIndex + 1,
      ArrowUp: activeIndex - 1,
      PageDown: activeIndex + page,
      PageUp: activeIndex - page,
      Home: 0,
      End: rows.length - 1,
    };
    const move = moves[event.key];
    // A button of the header has keys of its own.
    if (event.target !== event.currentTarget) return;
    if (move !== undefined) moveTo(move);
    else if (event.key === "Enter" && active !== null) onOpen(active);
    else if (event.key === " " && active !== null) toggle(active);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) toggleAll();
    else if (event.key === "Delete" && selection.size > 0) onDelete();
    else return;
    event.preventDefault();
  }

  return (
    <div
      ref={scroller}
      className="grid"
      role="grid"
      tabIndex={0}
      aria-label={text.views.sessions}
      aria-rowcount={rows.length + 1}
      aria-colcount={columns.length + 1}
      aria-multiselectable
      {...(activeIndex >= 0 && { "aria-activedescendant": `${idPrefix}${String(activeIndex)}` })}
      onKeyDown={onKeyDown}
      onFocus={({ target, currentTarget }) => {
        if (target === currentTarget && activeIndex < 0) moveTo(first);
      }}
    >
      <div role="rowgroup" className="grid-head">
        {table.getHeaderGroups().map((group) => (
          <div key={group.id} role="row" aria-rowindex={1} className="row">
            <div role="columnheader" className="cell check">
              <input type="checkbox" aria-label={text.selectAll} checked={allSelected} onChange={toggleAll} />
            </div>
            {group.headers.map(({ id, column: sorted }) => (
              <div
                key={id}
                role="columnheader"
                className={`cell ${id}`}
                aria-sort={sort.key !== id ? "none" : sort.descending ? "descending" : "ascending"}
              >
                <button
                  type="button"
                  className={NUMBERS.has(id) ? "sort number" : "sort"}
                  onClick={sorted.getToggleSortingHandler()}
                >
                  <span>{text.columns[id as SortKey]}</span>
                  {sorted.getIsSorted() === "desc" && <ArrowDown aria-hidden size={12} />}
                  {sorted.getIsSorted() === "asc" && <ArrowUp aria-hidden size={12} />}
                </button>
              </div>
            ))}
          </div>
        ))}
      </div>
      <div role="rowgroup" className="grid-body" style={{ height: virtualizer.getTotalSize() }}>
        {table.getRowModel().rows.map((row, position) => {
          const index = first + position;
          const session = row.original;
          return (
            <div
              key={row.id}
              id={`${idPrefix}${String(index)}`}
              role="row"
              className="row"
              aria-rowindex={index + 2}
              aria-selected={selection.has(row.id)}
              data-session={session.sessionId}
              data-active={index === activeIndex}
              data-open={open === row.id}
              style={{ transform: `translateY(${String(index * ROW_PX)}px)` }}
              onClick={() => {
                setActive(session);
                onOpen(session);
              }}
            >
              <div
                role="gridcell"
                className="cell check"
                onClick={(event) => {
                  event.stopPropagation();
                }}
              >
                <input
                  type="checkbox"
                  tabIndex={-1}
                  aria-label={text.select(session.sessionId)}
                  checked={selection.has(row.id)}
                  disabled={!isDeletable(session)}
                  title={isDeletable(session) ? undefined : text.onlyOpenClaw}
                  onChange={() => {
                    toggle(session);
                  }}
                />
              </div>
              {row.getAllCells().map((cell) => (
                <div key={cell.id} role="gridcell" className={`cell ${cell.column.id}`}>
                  <table.FlexRender cell={cell} />
                </div>
              ))}
            </div>
          );
        })}
      </div>
    </div>
  );
}

function IdCell({ session }: { session: SessionAnalysis }) {
  return (
    <>
      <span className="id" title={session.sessionId}>
        {session.sessionId}
      </span>
      <Marks session={session} />
    </>
  );
}

/** Where a session lies, and whether it is an archive; in `full` what became of that. */
export function Marks({ session, full = false }: { session: SessionAnalysis; full?: boolean }) {
  const { text } = useWords();
  const became = session.archivedAs && (wordFor(text.archivedAs, session.archivedAs) ?? session.archivedAs);
  return (
    <>
      {session.kind === "archive" && (
        <span className="mark archive" title={became ?? undefined}>
          {text.kinds.archive}
          {full && became !== null && `: ${became}`}
        </span>
      )}
      <span className="mark" data-store={session.store}>
        {wordFor(text.stores, session.store) ?? session.store}
      </span>
    </>
  );
}

export function CategoryCell({ session: { category } }: { session: SessionAnalysis }) {
  const { text } = useWords();
  return (
    <span className="category" data-category={category} title={text.categoriesAbout[category]}>
      {text.categories[category]}
    </span>
  );
}

function Count({ value }: { value: number }) {
  return <>{useWords().count(value)}</>;
}

function Size({ value }: { value: number }) {
  return <>{useWords().size(value)}</>;
}

function Age({ value }: { value: number }) {
  return <>{useWords().age(value)}</>;
}
