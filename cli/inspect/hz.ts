/** `subspace-inspect hz CHANNEL`: how often messages come. */

import { frequencyOf, renderFrequency } from "../../inspect/hz.ts";
import type { ObservedMessage } from "../../inspect/observer.ts";
import { ExitCode } from "../exit_codes.ts";
import { writeOut } from "../output.ts";
import type { InspectFlags } from "./flags.ts";
import { follow, repeatedly } from "./observing.ts";
import { endLine, screen } from "./screen.ts";

/** Prints a line an interval, until it is stopped. */
export async function runHz(flags: InspectFlags, [channel]: readonly string[]): Promise<number> {
  using followed = await follow(flags, channel);
  const { source } = followed;
  let messages: ObservedMessage[] = [];
  let previous: ObservedMessage | null = null;
  let begun = performance.now(), missedBefore = 0, shown = 0;
  const stopped = await repeatedly([followed], () => {
    const fresh = source.poll(false).filter(({ activation }) => !activation);
    messages.push(...fresh);
    const overMs = performance.now() - begun;
    const found = fresh.length > 0 ? "busy" : "idle";
    if (overMs < flags.interval) return found;
    const frequency = frequencyOf(channel, messages, source.missed - missedBefore, overMs, previous);
    previous = messages.at(-1) ?? previous;
    messages = [];
    begun = performance.now();
    missedBefore = source.missed;
    const text = flags.json ? JSON.stringify(frequency) + "\n" : renderFrequency(frequency, screen().width);
    return writeOut(text) && ++shown !== flags.count ? found : "done";
  });
  endLine(stopped);
  return ExitCode.ok;
}
