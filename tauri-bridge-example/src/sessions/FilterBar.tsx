import { Search } from "lucide-react";
import { ToggleGroup } from "radix-ui";
import { useWords } from "../i18n/LanguageContext";
import { CATEGORIES, type Category, type SessionFilter } from "./sessionOrder";

interface Props {
  filter: SessionFilter;
  onFilter: (filter: SessionFilter) => void;
}

export function FilterBar({ filter, onFilter }: Props) {
  const { text } = useWords();
  return (
    <div className="bar-row filters" role="group" aria-label={text.filters}>
      <ToggleGroup.Root
        type="multiple"
        className="toggles"
        aria-label={text.columns.category}
        value={[...filter.categories]}
        onValueChange={(categories) => {
          onFilter({ ...filter, categories: categories as Category[] });
        }}
      >
        {CATEGORIES.map((category) => (
          <ToggleGroup.Item key={category} value={category} className="toggle" title={text.categoriesAbout[category]}>
            <span className="category" data-category={category}>
              {text.categories[category]}
            </span>
          </ToggleGroup.Item>
        ))}
      </ToggleGroup.Root>
      <select
        aria-label={text.storeFilter}
        value={filter.store ?? ""}
        onChange={({ target }) => {
          onFilter({ ...filter, store: target.value || null });
        }}
      >
        <option value="">{text.anyStore}</option>
        <option value="jsonl">{text.stores.jsonl}</option>
        <option value="sqlite">{text.stores.sqlite}</option>
      </select>
      <select
        aria-label={text.kindFilter}
        value={filter.kind ?? ""}
        onChange={({ target }) => {
          onFilter({ ...filter, kind: (target.value || null) as SessionFilter["kind"] });
        }}
      >
        <option value="">{text.anyKind}</option>
        <option value="sessions">{text.kinds.sessions}</option>
        <option value="archive">{text.kinds.archive}</option>
      </select>
      <label className="search">
        <Search aria-hidden size={14} />
        <input
          type="search"
          aria-label={text.search}
          placeholder={text.search}
          spellCheck={false}
          value={filter.text}
          onChange={({ target }) => {
            onFilter({ ...filter, text: target.value });
          }}
        />
      </label>
    </div>
  );
}
