/** `subspace-inspect channels`: a line a channel. */

import { inspect } from "../../inspect/inspect.ts";
import { renderChannels } from "../../inspect/report.ts";
import type { InspectFlags } from "./flags.ts";
import { codeOf } from "./inspect.ts";
import { show } from "./screen.ts";

/** Prints the channels of a system. */
export async function runChannels({ socket, json, timeout }: InspectFlags): Promise<number> {
  const inspection = await inspect(socket, { timeoutMs: timeout });
  show(inspection, json, renderChannels);
  return codeOf(inspection.findings);
}
