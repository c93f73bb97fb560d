/** What server and shadows count of their own work. */

import { type CounterValue, type Programs, SCHEMA_VERSION } from "./model.ts";
import type { ReportOptions } from "./report.ts";
import { type Cell, type Column, renderTable } from "./table.ts";
import { formatCount } from "./units.ts";

/** What `counters` shows. */
export interface Counters {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  /** Those that tell, the server first. */
  readonly programs: readonly {
    readonly kind: "server" | "shadow";
    readonly socket: string;
    readonly pid: number;
    readonly counters: readonly CounterValue[];
  }[];
}

/** The counters of a system's programs; those of the reference's have none. */
export function countersOf({ server, shadows }: Programs): Counters {
  const telling = shadows.filter(({ counters }) => counters.length > 0);
  return {
    schemaVersion: SCHEMA_VERSION,
    programs: [
      ...(server === null ? [] : [{ kind: "server" as const, ...only(server) }]),
      ...telling.map((shadow) => ({ kind: "shadow" as const, ...only({ ...shadow, pid: shadow.pid ?? 0 }) })),
    ],
  };
}

function only({ socket, pid, counters }: { socket: string; pid: number; counters: readonly CounterValue[] }) {
  return { socket, pid, counters };
}

/** The value of a counter; of several of a name their sum. 0 where it is not there. */
export function valueOf(counters: readonly CounterValue[], name: string): number {
  return counters.reduce((sum, it) => it.name === name ? sum + it.value : sum, 0);
}

const columns: readonly Column[] = [
  { title: "PROGRAM", minimum: 12 },
  { title: "COUNTER" },
  { title: "OF" },
  { title: "VALUE", align: "right" },
];

/** Renders counters, a line each. */
export function renderCounters({ programs }: Counters, { width, style }: ReportOptions): string {
  const rows = programs.flatMap(({ kind, socket, counters }) =>
    counters.map(({ name, of, value }): Cell[] => {
      const alarming = value > 0 && (name === "refusals_total" || name === "loop_stalls_total");
      const text = formatCount(value);
      return [`${kind} ${socket}`, name, of ?? "", alarming ? { text, emphasis: "warning" } : text];
    })
  );
  return renderTable(columns, rows, width, style).join("\n") + "\n";
}
