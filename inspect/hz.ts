/** How often messages come, and how evenly. */

import { formatRate } from "./channel_view.ts";
import { SCHEMA_VERSION } from "./model.ts";
import type { ObservedMessage } from "./observer.ts";
import { displayWidth, shortened } from "./table.ts";
import { formatNumberOf } from "./units.ts";

/** The messages of some time. */
export interface Frequency {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly channel: string;
  readonly overMs: number;
  /** Messages, with those that were missed. */
  readonly messages: number;
  readonly missed: number;
  readonly perSecond: number;
  /** Time between two messages that follow each other; null where there were none. */
  readonly gapMs: {
    readonly min: number;
    readonly mean: number;
    readonly max: number;
    readonly deviation: number;
  } | null;
}

/**
 * Measures messages.
 *
 * @param messages In the order of their ordinals; the first may be the last of the time before.
 * @param missed Those that went unseen in this time.
 */
export function frequencyOf(
  channel: string,
  messages: readonly ObservedMessage[],
  missed: number,
  overMs: number,
  previous: ObservedMessage | null,
): Frequency {
  const all = previous === null ? messages : [previous, ...messages];
  const gaps: number[] = [];
  for (let i = 1; i < all.length; i++) {
    if (all[i].ordinal === all[i - 1].ordinal + 1) {
      gaps.push((all[i].timestampNs - all[i - 1].timestampNs) / 1e6);
    }
  }
  const count = messages.length + missed;
  return {
    schemaVersion: SCHEMA_VERSION,
    channel,
    overMs,
    messages: count,
    missed,
    perSecond: count * 1000 / overMs,
    gapMs: gaps.length === 0 ? null : statistics(gaps),
  };
}

function statistics(values: readonly number[]) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return {
    min: values.reduce((a, b) => Math.min(a, b)),
    mean,
    max: values.reduce((a, b) => Math.max(a, b)),
    deviation: Math.sqrt(variance),
  };
}

/** A name is not shortened beyond that. */
const NAME_COLUMNS_MIN = 12;

/** Renders a measurement, as one line: the name is shortened where that has to be. */
export function renderFrequency({ channel, perSecond, gapMs, missed }: Frequency, width: number): string {
  const parts = [`${formatRate(perSecond)} Hz`];
  if (gapMs !== null) {
    const { min, mean, max, deviation } = gapMs;
    parts.push(`gap ${formatMs(min)} to ${formatMs(max)}, mean ${formatMs(mean)} ± ${formatMs(deviation)}`);
  }
  if (missed > 0) parts.push(`${formatNumberOf(missed, "message")} too fast to see`);
  const measured = parts.join("  ");
  const name = shortened(channel, Math.max(NAME_COLUMNS_MIN, width - displayWidth(measured) - 2));
  return `${name}  ${measured}\n`;
}

function formatMs(ms: number): string {
  return ms < 1 ? `${Math.round(ms * 1000)} µs` : ms < 99.95 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}
