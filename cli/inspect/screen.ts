/** Where verbs show what they have found. */

import type { ReportOptions } from "../../inspect/report.ts";
import { colourStyle, plainStyle } from "../../inspect/table.ts";
import { terminalColumns, writeError, writeOut } from "../output.ts";
import type { StopSignal } from "../stopping.ts";

/** How text is rendered for whoever reads standard output. */
export function screen(): ReportOptions {
  const columns = terminalColumns(Deno.stdout);
  return { width: columns ?? Infinity, style: columns === null || Deno.noColor ? plainStyle : colourStyle };
}

/** After Ctrl-C, which the terminal shows as ^C, whatever comes next begins a line of its own. */
export function endLine(stopped: StopSignal | null): void {
  if (stopped === "SIGINT" && Deno.stderr.isTerminal()) writeError("\n");
}

/** Shows a model, as JSON or as text. Returns false where nobody reads it any more. */
export function show<Model>(
  model: Model,
  json: boolean,
  render: (model: Model, options: ReportOptions) => string,
): boolean {
  return writeOut(json ? JSON.stringify(model, null, 2) + "\n" : render(model, screen()));
}
