/** What the page remembers of its user from run to run; without a store of the browser, until it is closed. */

export function readSetting<T extends string>(name: string, values: readonly T[], otherwise: T): T {
  try {
    const stored = localStorage.getItem(name);
    return values.find((value) => value === stored) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function writeSetting(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // As if it had been forgotten.
  }
}
