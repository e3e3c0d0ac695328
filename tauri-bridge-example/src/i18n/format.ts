/** Numbers, sizes and times for people, by the rules of their language. */

const SIZE_UNITS = ["kB", "MB", "GB", "TB"];

export class Format {
  readonly #counts: Intl.NumberFormat;
  readonly #dates: Intl.DateTimeFormat;
  readonly #tenths: Intl.NumberFormat;

  constructor(language: string) {
    this.#counts = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
    this.#tenths = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
    this.#dates = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
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
    if (unit === 0) return `${this.count(value)} B`;
    return `${(value < 9.95 ? this.#tenths : this.#counts).format(value)} ${SIZE_UNITS[unit - 1]!}`;
  };

  /** Of a time as the sidecar writes it; as it is if it is none. */
  readonly time = (text: string): string => {
    const time = new Date(text);
    return Number.isNaN(time.getTime()) ? text : this.#dates.format(time);
  };
}
