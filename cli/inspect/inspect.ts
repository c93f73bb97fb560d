/** `subspace-inspect [inspect]`: the whole picture on one screen. */

import { inspect } from "../../inspect/inspect.ts";
import { renderReport } from "../../inspect/report.ts";
import { colourStyle, plainStyle } from "../../inspect/table.ts";
import { ExitCode } from "../exit_codes.ts";
import { terminalColumns, writeError, writeOut } from "../output.ts";

/** What the verb takes from the command line. */
export interface InspectFlags {
  readonly socket: string;
  readonly json: boolean;
  readonly timeout: number;
}

/** Prints a system. The exit code says whether its memory is sound. */
export async function runInspect({ socket, json, timeout }: InspectFlags): Promise<number> {
  const inspection = await inspect(socket, { timeoutMs: timeout });
  const columns = terminalColumns(Deno.stdout);
  writeOut(
    json ? JSON.stringify(inspection, null, 2) + "\n" : renderReport(inspection, {
      width: columns ?? Infinity,
      style: columns === null || Deno.noColor ? plainStyle : colourStyle,
    }),
  );
  const damage = inspection.findings.filter(({ kind }) => kind === "damage").length;
  if (damage === 0) return ExitCode.ok;
  writeError(`Shared memory is damaged: ${damage} finding${damage === 1 ? "" : "s"}, shown with the rest.\n`);
  return ExitCode.failure;
}
