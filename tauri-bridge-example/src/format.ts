/** Numbers for people. */

const COUNT = new Intl.NumberFormat("en");
const SIZE_UNITS = ["kB", "MB", "GB", "TB"];

export function count(value: number): string {
  return COUNT.format(value);
}

export function size(bytes: number): string {
  let value = bytes;
  let unit = "B";
  for (const larger of SIZE_UNITS) {
    if (value < 1_000) break;
    value /= 1_000;
    unit = larger;
  }
  return `${value < 10 && unit !== "B" ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
}
