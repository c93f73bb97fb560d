/** What a shadow counts of its own work, to be shown. */

import type { LoopMonitor } from "../ffi/loop_monitor.ts";
import type { ShadowInit, ShadowResume } from "../proto/subspace_pb.ts";
import type { Connection } from "../wire/connection.ts";
import { counter, type CounterInit, countersBy, processCounters } from "../wire/counters.ts";
import { Refusals } from "../wire/refusals.ts";

/** Why servers of ours say that they send everything: `SyncReason` in server/replication.ts. */
const SYNC_REASONS = ["start", "new", "behind", "reference"];

/** Plain numbers: whoever shows them reads them. */
export class ShadowCounters {
  /** Servers and readers that were ever let in. */
  accepted = 0;
  /** State dumps that were sent to the end. */
  dumpsSent = 0;
  /** Events that were applied, and those that made no sense. */
  events = 0;
  eventsFailed = 0;
  /** Times that a server sent everything, by the reason that it gave; and the last such reason, empty for none. */
  readonly fullSyncs = new Map<string, number>();
  lastFullSync = "";
  /** Times that a server went on where this shadow was. */
  resumes = 0;
  /** Where the server listens that writes, or was the last to; empty where it did not say. */
  serverSocket = "";
  readonly refusals = new Refusals();

  /** The reference's servers do not say why, nor where they listen. */
  noteFullSync({ generation, syncReason, serverSocket }: ShadowInit): void {
    const known = SYNC_REASONS.find((reason) => reason === syncReason) ?? "unknown";
    this.lastFullSync = generation === 0n ? "reference" : known;
    this.serverSocket = serverSocket;
    this.fullSyncs.set(this.lastFullSync, (this.fullSyncs.get(this.lastFullSync) ?? 0) + 1);
  }

  noteResume({ serverSocket }: ShadowResume): void {
    this.resumes++;
    this.serverSocket = serverSocket;
  }
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
