/** Telling open files apart, whoever holds them, as long as they are open. */

import { Fd } from "./fd.ts";
import { cstring, libc } from "./libc.ts";

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFIFO = 0o010000;
const O_RDONLY_CLOEXEC = 0o2000000;
const FDINFO_BYTES = 512;

/**
 * A name that all descriptors of the same thing share and nothing else open on this machine has: `memory-1-42`,
 * `pipe-7-read`, `eventfd-3`. Letters, digits and hyphens.
 *
 * @returns null for what cannot be told apart.
 * @throws {SystemError} If the fd is none.
 */
export function identityOf(fd: Fd): string | null {
  const { mode, device, inode } = fd.stat();
  switch (mode & S_IFMT) {
    case S_IFREG:
      return `memory-${device}-${inode}`;
    case S_IFIFO:
      return `pipe-${inode}-${fd.writable ? "write" : "read"}`;
    case 0:
      return eventfdIdentity(fd);
    default:
      return null;
  }
}

/** All eventfds share one inode; the kernel numbers them elsewhere. */
function eventfdIdentity(fd: Fd): string | null {
  const number = libc.open(cstring(`/proc/self/fdinfo/${fd.number}`), O_RDONLY_CLOEXEC, 0);
  if (number < 0) return null;
  using info = Fd.adopt(number, "fdinfo");
  const bytes = new Uint8Array(FDINFO_BYTES);
  const text = new TextDecoder().decode(bytes.subarray(0, info.readAt(0, bytes)));
  const id = text.match(/^eventfd-id:\s*(\d+)$/m)?.[1];
  return id === undefined ? null : `eventfd-${id}`;
}
