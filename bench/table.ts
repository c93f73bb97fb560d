/** How results are shown: lines that line up, or an object a line. */

import type { Result } from "./benchmark.ts";

const WIDTHS = { name: 52, figure: 10, ratio: 9, spread: 18 };

/** The first line of the table. */
export function heading(): string {
  const { name, figure, ratio, spread } = WIDTHS;
  return "".padEnd(name) + "ours".padStart(figure) + "peer".padStart(figure) +
    "ours/peer".padStart(ratio + 2) +
    "least..most".padStart(spread) + "  goal";
}

/** A line of the table. */
export function row({ subject, ours, peer, reason, ratio, spread }: Result): string {
  const { unit = "ns", goal } = subject;
  const range = ratio === null
    ? `${number(spread[0], scale(spread[1], unit))}..${amount(spread[1], unit)}`
    : `${spread[0].toFixed(2)}..${spread[1].toFixed(2)}`;
  const cells = [
    `  ${subject.name}`.padEnd(WIDTHS.name),
    amount(ours, unit).padStart(WIDTHS.figure),
    (peer === null ? "-" : amount(peer, unit)).padStart(WIDTHS.figure),
    (ratio === null ? "-" : ratio.toFixed(2)).padStart(WIDTHS.ratio + 2),
    range.padStart(WIDTHS.spread),
  ];
  if (reason !== null) cells.push(`  ${reason}`);
  else if (goal !== undefined) cells.push(`  ${goal.toFixed(2)} ${ratio! <= goal ? "met" : "missed"}`);
  return cells.join("");
}

/** A result as one line of JSON. Times are of one operation; ratios below 1 mean that ours is faster. */
export function json({ subject, ours, peer, reason, ratio, spread }: Result): string {
  const { name, unit = "ns", goal } = subject;
  return JSON.stringify({
    name,
    [`ours_${unit}`]: round(ours),
    [`peer_${unit}`]: peer === null ? null : round(peer),
    ratio: ratio === null ? null : round(ratio),
    spread: spread.map(round),
    ...(goal === undefined ? {} : { goal }),
    ...(reason === null ? {} : { reason }),
  });
}

const round = (value: number) => Number(value.toPrecision(4));

type Unit = "ns" | "bytes" | "count";

interface Scale {
  readonly divisor: number;
  readonly name: string;
}

/** What a figure is best told in. */
function scale(value: number, unit: Unit): Scale {
  if (unit === "count") return { divisor: 1, name: "" };
  if (unit === "bytes") return { divisor: 2 ** 20, name: " MiB" };
  if (value < 1e4) return { divisor: 1, name: " ns" };
  return value < 1e7 ? { divisor: 1e3, name: " µs" } : { divisor: 1e6, name: " ms" };
}

function amount(value: number, unit: Unit): string {
  const best = scale(value, unit);
  return number(value, best) + best.name;
}

function number(value: number, { divisor }: Scale): string {
  const scaled = value / divisor;
  return scaled.toFixed(divisor === 1 || scaled >= 100 ? 0 : 1);
}
