/** Numbers, sizes and times for people, by the rules of their language. */

const SIZE_UNITS = ["kilobyte", "megabyte", "gigabyte", "terabyte"];

export class Format {
  readonly #counts: Intl.NumberFormat;
  readonly #dates: Intl.DateTimeFormat;
  readonly #sizes: readonly Intl.NumberFormat[];

  constructor(language: string) {
    this.#counts = new Intl.NumberFormat(language);
    this.#dates = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
    this.#sizes = ["byte", ...SIZE_UNITS].map(
      // The short form of a byte is a word in English, and none of its plural.
      (unit) =>
        new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: unit === "byte" ? "narrow" : "short" }),
    );
  }

  readonly count = (value: number): string => this.#counts.format(value);

  /** In powers of 1,000, with one decimal below ten. */
  readonly size = (bytes: number): string => {
    let value = bytes;
    let unit = 0;
    while (value >= 999.5 && unit < SIZE_UNITS.length) {
      value /= 1_000;
      unit += 1;
    }
    const rounded = unit === 0 || value >= 9.95 ? Math.round(value) : Math.round(value * 10) / 10;
    return this.#sizes[unit]!.format(rounded);
  };

  /** Of a time as the sidecar writes it; as it is if it is none. */
  readonly time = (text: string): string => {
    const time = new Date(text);
    return Number.isNaN(time.getTime()) ? text : this.#dates.format(time);
  };
}
