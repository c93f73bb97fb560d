/** Errors of the operating system, by name. */

/** Error numbers that this project acts on or shows, Linux x86_64 and arm64. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EPIPE: 32,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  EADDRINUSE: 98,
  ENETDOWN: 100,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ENOTCONN: 107,
  ETOOMANYREFS: 109,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EINPROGRESS: 115,
} as const;

const names = new Map<number, string>(Object.entries(Errno).map(([name, number]) => [number, name]));

/** The symbolic name of an error number, such as `ENOENT`; `errno 999` where it has none here. */
export function errnoName(number: number): string {
  return names.get(number) ?? `errno ${number}`;
}

/** A system call failed. */
export class SystemError extends Error {
  override readonly name = "SystemError";
  /** The symbolic name of the error number, such as `ENOENT`. */
  readonly code: string;

  /**
   * @param what What could not be done, to what: `connect to the server socket /tmp/subspace`.
   * @param errno The error number that the call left behind.
   */
  constructor(what: string, readonly errno: number) {
    super(`Cannot ${what}: ${errnoName(errno)}`);
    this.code = errnoName(errno);
  }
}
