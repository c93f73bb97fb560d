/** What a shadow counts of its own work, to be shown. */

import type { LoopMonitor } from "../ffi/loop_monitor.ts";
import type { Connection } from "../wire/connection.ts";
import { counter, type CounterInit, countersBy, processCounters } from "../wire/counters.ts";
import { Refusals } from "../wire/refusals.ts";

/** Plain numbers: whoever shows them reads them. */
export class ShadowCounters {
  /** Servers and readers that were ever let in. */
  accepted = 0;
  /** State dumps that were sent to the end. */
  dumpsSent = 0;
  /** Events that were applied, and those that made no sense. */
  events = 0;
  eventsFailed = 0;
  /** Times that a server sent everything, by the reason that it gave. */
  readonly fullSyncs = new Map<string, number>();
  /** Times that a server went on where this shadow was. */
  resumes = 0;
  readonly refusals = new Refusals();
}

/** What a shadow tells of its own work. */
export function shadowCounters(
  counters: ShadowCounters,
  heldFds: number,
  loop: LoopMonitor,
  connections: readonly Connection[],
): CounterInit[] {
  return [
    counter("connections", connections.length),
    counter("connections_total", counters.accepted),
    counter("dumps_sent_total", counters.dumpsSent),
    counter("events_total", counters.events),
    counter("events_failed_total", counters.eventsFailed),
    ...countersBy("full_syncs_total", "reason", counters.fullSyncs),
    counter("resumes_total", counters.resumes),
    counter("held_fds", heldFds),
    ...processCounters(counters.refusals, loop, connections),
  ];
}
