/** `subspace-inspect [inspect]`: the whole picture on one screen. */

import { inspect } from "../../inspect/inspect.ts";
import type { Finding } from "../../inspect/model.ts";
import { renderReport } from "../../inspect/report.ts";
import { ExitCode } from "../exit_codes.ts";
import { writeError } from "../output.ts";
import type { InspectFlags } from "./flags.ts";
import { show } from "./screen.ts";

/** Prints a system. The exit code says whether what was seen of it is whole. */
export async function runInspect({ socket, json, timeout }: InspectFlags): Promise<number> {
  const inspection = await inspect(socket, { timeoutMs: timeout });
  show(inspection, json, renderReport);
  return codeOf(inspection.findings);
}

/** The exit code of a verb that has shown findings, and a word on standard error where there is damage. */
export function codeOf(findings: readonly Finding[]): number {
  const damage = findings.filter(({ kind }) => kind === "damage").length;
  if (damage === 0) return ExitCode.ok;
  writeError(`Damage was found: ${damage} finding${damage === 1 ? "" : "s"}, shown with the rest.\n`);
  return ExitCode.failure;
}
