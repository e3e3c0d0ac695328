/** The languages of the page. A type holds them together: each has the same keys, with the same parameters. */

import { en } from "./en";
import { zh } from "./zh";

export type Text = typeof en;

export const LANGUAGES = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

export const TEXTS: Record<Language, Text> = { en, zh };

/** The first of the user's languages that there is. */
export function languageOf(wanted: readonly string[]): Language {
  for (const tag of wanted) {
    const [name] = tag.toLowerCase().split("-");
    if (name === "zh" || name === "en") return name;
  }
  return "en";
}
