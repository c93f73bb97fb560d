/** Numbers as people read them. */

const byteUnits = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `0 B`, `256 B`, `1.5 KiB`, `12 MiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // What would be rounded up to 1024 is shown as 1.0 of the next unit.
  for (; value >= 1023.5 && unit < byteUnits.length - 1; unit++) value /= 1024;
  return `${unit > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${byteUnits[unit]}`;
}

const countUnits = ["", " k", " M", " G", " T", " P"];

/** All digits up to nine of them, then `1234 M`. */
export function formatCount(count: number): string {
  let value = count;
  let unit = 0;
  for (; value >= 1e9 && unit < countUnits.length - 1; unit++) value /= 1000;
  return `${Math.round(value)}${countUnits[unit]}`;
}

/** The two largest units: `850 ms`, `12 s`, `3 min 5 s`, `2 d 4 h`. */
export function formatAge(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = Math.floor(ms / 1000);
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  return parts.slice(first, first + 2).filter(([value]) => value > 0).map((part) => part.join(" ")).join(" ");
}

/** `1 channel`, `2 channels`. */
export function formatNumberOf(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}
