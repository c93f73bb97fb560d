/** Eventfds: the wake-ups of the data path (specification, section 5.17). */

import { Errno, SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { errno, libc } from "./libc.ts";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

const one = new Uint8Array(new BigUint64Array([1n]).buffer);
const counter = new Uint8Array(8);

/** Creates an eventfd with counter 0 that never blocks. */
export function createEventFd(): Fd {
  return Fd.from(libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd", "create an eventfd");
}

/**
 * Adds 1 to the counter, which wakes whoever waits. A full counter is as good: the reader is awake already.
 *
 * @throws {SystemError} If the number is no open fd.
 */
export function signal(fdNumber: number): void {
  if (libc.write(fdNumber, one, 8) < 0 && errno() !== Errno.EAGAIN) {
    throw new SystemError("signal an eventfd", errno());
  }
}

/** Sets the counter to 0. Returns whether it was above. */
export function drain(fdNumber: number): boolean {
  return libc.read(fdNumber, counter, 8) === 8;
}
