/** How many fds this process may open. */

import { SystemError } from "./errno.ts";
import { errno, libc } from "./libc.ts";

const RLIMIT_NOFILE = 7;

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
