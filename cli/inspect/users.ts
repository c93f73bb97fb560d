/** `subspace-inspect users`: a line a publisher or subscriber. */

import { inspect } from "../../inspect/inspect.ts";
import { renderUsers } from "../../inspect/report.ts";
import { usersOf } from "../../inspect/users.ts";
import type { InspectFlags } from "./flags.ts";
import { codeOf } from "./inspect.ts";
import { show } from "./screen.ts";

/** Prints the users of a system. */
export async function runUsers({ socket, json, timeout }: InspectFlags): Promise<number> {
  const inspection = await inspect(socket, { timeoutMs: timeout });
  if (json) show(usersOf(inspection), true, () => "");
  else show(inspection, false, renderUsers);
  return codeOf(inspection.findings);
}
