/** What a view of a system needs to know of the machine that it is on. Passed in, so that tests can make it up. */

import { monotonicNs } from "../ffi/clock.ts";
import { processExists } from "../ffi/process.ts";

/** A machine at some moment. */
export interface Surroundings {
  processExists(pid: number): boolean;
  /** CLOCK_MONOTONIC. */
  readonly nowNs: bigint;
}

/** This machine, now. */
export function surroundingsNow(): Surroundings {
  return { processExists, nowNs: monotonicNs() };
}
