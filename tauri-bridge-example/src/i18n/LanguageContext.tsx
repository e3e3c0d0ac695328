import { createContext, use, useEffect, useMemo, useState, type ReactNode } from "react";
import { readSetting, writeSetting } from "../settings";
import type { Counted } from "./en";
import { Format } from "./format";
import { LANGUAGES, languageOf, TEXTS, type Language, type Text } from "./text";

export interface Words extends Pick<Format, "count" | "size" | "time"> {
  language: Language;
  setLanguage: (language: Language) => void;
  text: Text;
  counted: (value: number) => Counted;
  /** Of a time in days: whole days, below one whole hours. */
  age: (days: number) => string;
}

const Context = createContext<Words | null>(null);

/** The user's choice, else what the system prefers. */
export function LanguageProvider({ children }: { children: ReactNode }) {
  const [language, setLanguage] = useState<Language>(() =>
    readSetting("language", Object.keys(LANGUAGES) as Language[], languageOf(navigator.languages)),
  );
  useEffect(() => {
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    writeSetting("language", language);
  }, [language]);
  const words = useMemo(() => {
    const { count, size, time } = new Format(language === "zh" ? "zh-CN" : "en");
    const text = TEXTS[language];
    const age = (days: number) =>
      days < 1 ? text.ageHours(count(Math.floor(days * 24))) : text.ageDays(count(Math.floor(days)));
    const counted = (value: number) => ({ value, written: count(value) });
    return { language, setLanguage, text, counted, age, count, size, time };
  }, [language]);
  return <Context value={words}>{children}</Context>;
}

export function useWords(): Words {
  const words = use(Context);
  if (words === null) throw new Error("no LanguageProvider around");
  return words;
}
