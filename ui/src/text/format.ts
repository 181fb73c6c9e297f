/** Quantities as text for people. Sizes are decimal, as Ollama shows them. */

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** 4_920_000_000 → "4.9 GB". */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : Number(value.toFixed(1))} ${UNITS[unit]}`;
}

/** A share as a whole number of percent, rounded down: 100 % means complete. Null if the total is not known. */
export function percent(completed: number, total: number | null): number | null {
  return total && total > 0 ? Math.min(100, Math.floor((100 * completed) / total)) : null;
}

/** A Model's name without the tag that Ollama's API adds to names without one. */
export function shortName(name: string): string {
  return name.replace(/:latest$/, "");
}

export function plural(count: number, noun: string): string {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** 41.27 → "41", 4.13 → "4.1". */
export function rate(perSecond: number): string {
  if (perSecond === 0) return "0";
  return perSecond >= 10 ? Math.round(perSecond).toLocaleString("en") : perSecond.toFixed(1);
}

/** A time in the future, relative to now (both in milliseconds): "in 4 min". Null if it is more than a year away. */
export function until(then: number, now: number): string | null {
  const seconds = Math.round((then - now) / 1000);
  if (!Number.isFinite(seconds) || seconds > 366 * 86400) return null;
  if (seconds <= 0) return "now";
  if (seconds < 60) return `in ${seconds} s`;
  if (seconds < 3600) return `in ${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `in ${Math.round(seconds / 3600)} h`;
  return `in ${plural(Math.round(seconds / 86400), "day")}`;
}

/** Milliseconds as seconds with one decimal: "0.8 s". */
export function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}
