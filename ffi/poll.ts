/** Waiting for fds on this thread, without the event loop. */

import { Errno, SystemError } from "./errno.ts";
import { errno, libc } from "./libc.ts";

const POLLIN = 1;

/**
 * Waits until one of several fds is readable or broken. Blocks the whole thread: timers and promises rest.
 *
 * @param timeoutMs How long at most, in milliseconds; -1 for ever.
 * @returns The ready ones, in the order given; none after a time-out or a signal.
 */
export function pollSync(fdNumbers: readonly number[], timeoutMs: number): number[] {
  const table = new Int32Array(fdNumbers.length * 2);
  fdNumbers.forEach((fd, i) => {
    table[2 * i] = fd;
    table[2 * i + 1] = POLLIN;
  });
  const timeout = timeoutMs < 0 ? -1 : Math.min(Math.ceil(timeoutMs), 0x7fff_ffff);
  if (libc.poll(new Uint8Array(table.buffer), fdNumbers.length, timeout) < 0 && errno() !== Errno.EINTR) {
    throw new SystemError("wait for fds", errno());
  }
  return fdNumbers.filter((_, i) => table[2 * i + 1] >>> 16 !== 0);
}
