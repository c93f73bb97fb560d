/** Packet pipes: slot ids of retired messages, one a packet (specification, section 5.17). */

import { Errno, SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { cstring, errno, libc, rareLibc } from "./libc.ts";

const O_WRONLY = 1;
const O_NONBLOCK = 0o4000;
const O_DIRECT = Deno.build.arch === "aarch64" ? 0o200000 : 0o40000;
const O_CLOEXEC = 0o2000000;

const word = new Int32Array(1);
const wordBytes = new Uint8Array(word.buffer);

/**
 * Creates a pipe whose every write is read back whole.
 *
 * Both ends are non-blocking: a notification that nobody reads must never stop the one who sends it (the
 * reference blocks after 16: section 9.2, 21).
 */
export function createPacketPipe(): [read: Fd, write: Fd] {
  const numbers = new Int32Array(2);
  if (rareLibc().pipe2(new Uint8Array(numbers.buffer), O_DIRECT | O_NONBLOCK | O_CLOEXEC) < 0) {
    throw new SystemError("create a pipe", errno());
  }
  return [Fd.adopt(numbers[0], "pipe (read end)"), Fd.adopt(numbers[1], "pipe (write end)")];
}

/**
 * Takes the write end of a pipe that somebody else made, and gives one back that never blocks.
 *
 * It is opened anew: the mode belongs to the open file, which others write to as well and may want to block.
 */
export function nonBlockingWriteEnd(fd: Fd): Fd {
  const flags = O_WRONLY | O_NONBLOCK | O_CLOEXEC;
  const number = libc.open(cstring(`/proc/self/fd/${fd.number}`), flags, 0);
  if (number < 0) return fd; // Without a reader, or without /proc: a broken pipe, or what was there before.
  fd.close();
  return Fd.adopt(number, "pipe (write end)");
}

/** Writes an int32. Returns false where the pipe is full or its reader gone. */
export function writeInt32(fdNumber: number, value: number): boolean {
  word[0] = value;
  return libc.write(fdNumber, wordBytes, 4) === 4;
}

/** Writes an int64. Returns false where the pipe is full or its reader gone. */
export function writeInt64(fdNumber: number, value: bigint): boolean {
  return libc.write(fdNumber, new Uint8Array(new BigInt64Array([value]).buffer), 8) === 8;
}

/** Reads an int32; null where there is none. */
export function readInt32(fdNumber: number): number | null {
  const n = libc.read(fdNumber, wordBytes, 4);
  if (n === 4) return word[0];
  if (n < 0 && errno() !== Errno.EAGAIN) throw new SystemError("read a pipe", errno());
  return null;
}
