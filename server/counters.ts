/** What a server counts of its own work, to be shown. */

import type { LoopMonitor } from "../ffi/loop_monitor.ts";
import type { Init } from "../proto/message.ts";
import type { ServerReport } from "../proto/subspace_pb.ts";
import type { Connection } from "../wire/connection.ts";
import { counter, countersBy, processCounters } from "../wire/counters.ts";
import { Refusals } from "../wire/refusals.ts";
import type { ChannelTable } from "./channel_table.ts";
import type { Replication } from "./replication.ts";

/** Plain numbers: whoever shows them reads them. */
export class ServerCounters {
  /** Clients connected now, and the most at any time. */
  connections = 0;
  connectionsPeak = 0;
  /** Clients that were ever let in. */
  accepted = 0;
  /** Requests that were read, whatever the answer. */
  requests = 0;
  /** The same by kind. */
  readonly requestsByKind = new Map<string, number>();
  /** Times that a client had to take answers before its next request was read. */
  pauses = 0;
  readonly refusals = new Refusals();

  connected(): void {
    this.accepted++;
    this.connectionsPeak = Math.max(this.connectionsPeak, ++this.connections);
  }

  requested(kind: string, count = 1): void {
    this.requests += count;
    this.requestsByKind.set(kind, (this.requestsByKind.get(kind) ?? 0) + count);
  }
}

/** What a server tells of its own work. */
export function serverReport(
  counters: ServerCounters,
  table: ChannelTable,
  replication: Replication | null,
  loop: LoopMonitor,
  connections: Iterable<Connection>,
): Init<ServerReport> {
  return {
    counters: [
      counter("connections", counters.connections),
      counter("connections_peak", counters.connectionsPeak),
      counter("connections_total", counters.accepted),
      ...countersBy("requests_total", "kind", counters.requestsByKind),
      counter("pauses_total", counters.pauses),
      counter("orphans", table.numOrphans),
      counter("orphans_reaped_total", table.orphansReaped),
      ...processCounters(counters.refusals, loop, connections),
    ],
    generation: replication?.generation ?? 0n,
    offset: BigInt(replication?.offset ?? 0),
    shadows: (replication?.shadows ?? []).map(
      ({ label, socket, connected, lag, lastFullSync, syncFull, syncPartial }) => ({
        label,
        socket,
        connected,
        lag: BigInt(lag),
        lastFullSync: lastFullSync ?? "",
        fullSyncs: BigInt(syncFull.values().reduce((sum, count) => sum + count, 0)),
        partialSyncs: BigInt(syncPartial),
      }),
    ),
  };
}
