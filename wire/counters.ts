/** What programs count of their own work, as it is told: what server and shadow have in common. */

import type { Init } from "../proto/message.ts";
import type { LoopMonitor } from "../ffi/loop_monitor.ts";
import { fdLimit, numOpenFds } from "../ffi/resource_limits.ts";
import type { Counter } from "../proto/subspace_pb.ts";
import type { Connection } from "./connection.ts";
import type { Refusals } from "./refusals.ts";

/** One counter. */
export type CounterInit = Init<Counter>;

/** A counter without a label. Fractions are cut off. */
export function counter(name: string, value: number): CounterInit {
  return { name, value: BigInt(Math.trunc(value)) };
}

/** A counter for each member of what was counted by something. */
export function countersBy(
  name: string,
  label: string,
  counts: Iterable<readonly [of: string, value: number]>,
): CounterInit[] {
  return Array.from(counts, ([of, value]) => ({ ...counter(name, value), label, of }));
}

/** What every program counts: refusals, what waits to be sent, how its loop does, and its fds. */
export function processCounters(
  refusals: Refusals,
  loop: LoopMonitor,
  connections: Iterable<Pick<Connection, "outboundFrames" | "outboundBytes">>,
): CounterInit[] {
  let frames = 0, bytes = 0, longest = 0;
  for (const { outboundFrames, outboundBytes } of connections) {
    frames += outboundFrames;
    bytes += outboundBytes;
    longest = Math.max(longest, outboundFrames);
  }
  return [
    ...countersBy("refusals_total", "reason", Object.entries(refusals.totals())),
    counter("queued_frames", frames),
    counter("queued_frames_longest", longest),
    counter("queued_bytes", bytes),
    counter("loop_stalls_total", loop.stalls),
    counter("loop_stalled_ms_total", loop.stalledMs),
    counter("loop_stall_worst_ms", loop.worstMs),
    counter("fds", numOpenFds()),
    counter("fds_max", fdLimit().soft),
  ];
}
