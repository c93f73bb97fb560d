/** CLOCK_MONOTONIC, the clock of all timestamps and session ids. */

import { libc } from "./libc.ts";

const CLOCK_MONOTONIC = 1;

const timespec = new BigInt64Array(2);
const words = new Uint32Array(timespec.buffer);
const timespecPointer = Deno.UnsafePointer.of(timespec);

/** Nanoseconds since an arbitrary start, the same for all processes of the machine. */
export function monotonicNs(): bigint {
  libc.clock_gettime(CLOCK_MONOTONIC, timespecPointer);
  return timespec[0] * 1_000_000_000n + timespec[1];
}

/** Milliseconds since the same start, and parts of them. As `performance.now()`, in a third of the time. */
export function monotonicMs(): number {
  libc.clock_gettime(CLOCK_MONOTONIC, timespecPointer);
  return words[0] * 1000 + words[2] / 1e6;
}

/** Stores the time as a `struct timespec` (two 64-bit words: seconds, nanoseconds) at an address; allocates nothing. */
export function clockInto(target: Deno.PointerValue): void {
  libc.clock_gettime(CLOCK_MONOTONIC, target);
}
