/** `subspace-inspect counters`: what server and shadows count of their own work. */

import { countersOf, renderCounters } from "../../inspect/counters.ts";
import { InspectError } from "../../inspect/link.ts";
import { ExitCode } from "../exit_codes.ts";
import type { InspectFlags } from "./flags.ts";
import { show } from "./screen.ts";
import { askAll } from "./shadows.ts";

/** Prints the counters of a system's programs. */
export async function runCounters(flags: InspectFlags): Promise<number> {
  const counters = countersOf(await askAll(flags));
  if (counters.programs.length === 0) {
    throw new InspectError(
      `Cannot ask ${flags.socket}: that is a program of the reference's, which counts nothing`,
    );
  }
  show(counters, flags.json, renderCounters);
  return ExitCode.ok;
}
