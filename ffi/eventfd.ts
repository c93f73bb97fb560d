/** Eventfds: the wake-ups of the data path (specification, section 5.17). */

import { Errno, SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { errno, libc } from "./libc.ts";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

/** By number: libc's `read` and `write` look for cancellation, which costs a tenth of a wake-up. */
const [SYS_READ, SYS_WRITE] = Deno.build.arch === "x86_64" ? [0, 1] : [63, 64];

/** A value for the kernel, and where it is. */
class Counter {
  readonly #value: BigUint64Array<ArrayBuffer>;
  readonly pointer: Deno.PointerValue;

  constructor(value: bigint) {
    this.#value = new BigUint64Array([value]);
    this.pointer = Deno.UnsafePointer.of(this.#value);
  }
}

const one = new Counter(1n), scratch = new Counter(0n);

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
  if (libc.syscall(SYS_WRITE, fdNumber, one.pointer, 8) < 0 && errno() !== Errno.EAGAIN) {
    throw new SystemError("signal an eventfd", errno());
  }
}

/** Sets the counter to 0. Returns whether it was above. */
export function drain(fdNumber: number): boolean {
  return libc.syscall(SYS_READ, fdNumber, scratch.pointer, 8) === 8;
}
