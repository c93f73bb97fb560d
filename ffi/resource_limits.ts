/** How many fds this process may open, and has. */

import { listDirectory } from "./directory.ts";
import { SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { cstring, errno, libc } from "./libc.ts";

const RLIMIT_NOFILE = 7;
const O_DIRECTORY_CLOEXEC = (Deno.build.arch === "aarch64" ? 0o40000 : 0o200000) | 0o2000000;
const FD_FOLDER = "/proc/self/fd";

/** RLIMIT_NOFILE. */
export interface FdLimit {
  /** Fd numbers are below it. */
  readonly soft: number;
  /** How far this process may raise it. */
  readonly hard: number;
}

const limits = new BigUint64Array(2);
const bytes = new Uint8Array(limits.buffer);

/** The limit now. Unlimited counts as 2^53. */
export function fdLimit(): FdLimit {
  if (libc.getrlimit(RLIMIT_NOFILE, bytes) < 0) throw new SystemError("ask for the limit of fds", errno());
  const [soft, hard] = Array.from(limits, (limit) => Math.min(Number(limit), Number.MAX_SAFE_INTEGER));
  return { soft, hard };
}

/** Sets how many fds this process may open, as far as it is allowed to, and says what the limit is then. */
export function setFdLimit(wanted: number): FdLimit {
  const { hard } = fdLimit();
  limits[0] = BigInt(Math.min(wanted, hard));
  if (libc.setrlimit(RLIMIT_NOFILE, bytes) < 0) throw new SystemError("set the limit of fds", errno());
  return fdLimit();
}

/** How many fds this process has open. The kernel says since Linux 6.2; before that they are counted. */
export function numOpenFds(): number {
  using folder = Fd.from(
    libc.open(cstring(FD_FOLDER), O_DIRECTORY_CLOEXEC, 0),
    "folder",
    `open ${FD_FOLDER}`,
  );
  // The folder's own is one of them.
  return (folder.stat().bytes || listDirectory(FD_FOLDER).length - 1) - 1;
}
