/** The shadows of a system: whether they are in step, and what they have. */

import type { Inspection, Programs, SCHEMA_VERSION, ShadowProgram } from "./model.ts";
import type { ReportOptions } from "./report.ts";
import { type Cell, type Column, printable, renderTable, sentenceLines } from "./table.ts";
import { formatCount, formatNumberOf } from "./units.ts";

/** What `shadows` shows. */
export interface Shadows extends Programs {
  readonly schemaVersion: typeof SCHEMA_VERSION;
}

const columns: readonly Column[] = [
  { title: "SHADOW", minimum: 8 },
  { title: "PID", align: "right" },
  { title: "STATE" },
  { title: "LAG", align: "right" },
  { title: "GENERATION", align: "right", minimum: 8 },
  { title: "OFFSET", align: "right" },
  { title: "CHANNELS", align: "right" },
  { title: "FULL SYNC" },
  { title: "ASIDE", align: "right" },
];

/** The table of shadows, for a report; no lines where there are none. */
function shadowLines(shadows: readonly ShadowProgram[], { width, style }: ReportOptions): string[] {
  return shadows.length === 0 ? [] : renderTable(columns, shadows.map(row), width, style);
}

/** Renders the shadows, a line each, behind the server. */
export function renderShadows({ server, serverSilent, shadows }: Shadows, options: ReportOptions): string {
  const { style } = options;
  const head = server === null
    ? style(
      `${
        serverSilent ? "The server answers nobody" : "No server tells of itself"
      }: lags are behind the freshest shadow`,
      serverSilent ? "alarm" : "warning",
    )
    : `${style("Server", "heading")} ${printable(server.socket)} (pid ${server.pid})` +
      (server.generation === null
        ? ", without shadows"
        : `, generation ${server.generation}, offset ${server.offset}`);
  const problems = shadows.flatMap(({ socket, problem }) =>
    problem === null ? [] : [style(`${printable(socket)}: ${printable(problem)}`, "alarm")]
  );
  const table = shadowLines(shadows, options);
  const fitting = (line: string) => sentenceLines(line, options.width);
  const lines = [...fitting(head), "", ...table];
  if (problems.length > 0) lines.push("", ...problems.flatMap(fitting));
  return lines.join("\n") + "\n";
}

function row(shadow: ShadowProgram): Cell[] {
  const { socket, label, pid, position, numChannels, lastFullSync, previous, lag } = shadow;
  const known = (value: number | null) => value === null ? "-" : formatCount(value);
  return [
    label === null ? socket : `${label} ${socket}`,
    pid === null ? "-" : String(pid),
    stateOf(shadow),
    known(lag),
    position?.generation ?? "-",
    known(position?.offset ?? null),
    known(numChannels),
    lastFullSync ?? "-",
    previous === null ? "" : formatCount(previous.numChannels),
  ];
}

function stateOf({ kind, inStep, connected, position }: ShadowProgram): Cell {
  if (kind === "gone") return { text: "GONE", emphasis: "alarm" };
  if (position !== null && !position.complete) return { text: "incomplete", emphasis: "warning" };
  if (inStep === false) return { text: "BEHIND", emphasis: "alarm" };
  if (connected === false) return { text: "no server", emphasis: "warning" };
  return inStep === null ? "reference" : "in step";
}

/** One line on whether shadows are in step, for summaries; null where there is nothing to say. */
export function shadowSummary(
  { programs }: Pick<Inspection, "programs">,
): { text: string; fine: boolean } | null {
  const shadows = programs?.shadows ?? [];
  const known = shadows.filter(({ inStep }) => inStep !== null);
  if (known.length === 0) return null;
  const late = known.filter(({ inStep }) => !inStep);
  if (late.length === 0) {
    return { text: `${formatNumberOf(known.length, "shadow")} in step`, fine: true };
  }
  const names = late.map(({ socket, kind, lag }) =>
    `${socket} ${
      kind === "gone" ? "is gone" : lag === null ? "is of another time" : `lags by ${formatCount(lag)}`
    }`
  );
  return { text: `shadows NOT in step: ${names.join(", ")}`, fine: false };
}
