import { Monitor, Moon, Sun } from "lucide-react";
import { ToggleGroup } from "radix-ui";
import { useEffect, useState } from "react";
import { useWords } from "../i18n/LanguageContext";
import { LANGUAGES, type Language } from "../i18n/text";
import { readSetting, writeSetting } from "../settings";

const THEMES = ["system", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];
const ICONS = { system: Monitor, light: Sun, dark: Moon };

/** Language and colours, as the system has them or as the user wants. */
export function Appearance() {
  const { text, language, setLanguage } = useWords();
  const [theme, setTheme] = useState<Theme>(() => readSetting("theme", THEMES, "system"));
  useEffect(() => {
    document.documentElement.dataset["theme"] = theme;
    writeSetting("theme", theme);
  }, [theme]);
  return (
    <div className="appearance">
      <select
        aria-label={text.language}
        value={language}
        onChange={({ target }) => {
          setLanguage(target.value as Language);
        }}
      >
        {Object.entries(LANGUAGES).map(([name, label]) => (
          <option key={name} value={name}>
            {label}
          </option>
        ))}
      </select>
      <ToggleGroup.Root
        type="single"
        className="toggles"
        aria-label={text.theme}
        value={theme}
        onValueChange={(value) => {
          // It is empty if the one that is on is pressed.
          if (value) setTheme(value as Theme);
        }}
      >
        {THEMES.map((name) => {
          const Icon = ICONS[name];
          return (
            <ToggleGroup.Item
              key={name}
              value={name}
              className="toggle"
              aria-label={text.themes[name]}
              title={text.themes[name]}
            >
              <Icon aria-hidden size={14} />
            </ToggleGroup.Item>
          );
        })}
      </ToggleGroup.Root>
    </div>
  );
}
