/** File descriptors as owned values. */

import { SystemError } from "./errno.ts";
import { errno, libc, rareLibc } from "./libc.ts";

const F_DUPFD_CLOEXEC = 1030;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_GETFL = 3;
const O_ACCMODE = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const EPOLL_CLOEXEC = 0o2000000;

/** What the kernel says about an open file: see `Fd.stat`. */
export interface FileStatus {
  readonly device: bigint;
  readonly inode: bigint;
  /** File type and permission bits, as in `st_mode`. */
  readonly mode: number;
  /** Length in bytes. */
  readonly bytes: number;
}

const statBuffer = new Uint8Array(256);
const statView = new DataView(statBuffer.buffer);
/** `st_mode` is where the two architectures' `struct stat` differ. */
const modeOffset = Deno.build.arch === "aarch64" ? 16 : 24;

/**
 * A file descriptor with one owner, closed exactly once.
 *
 * Invariant: the number is open and belongs to this object until `close`, and is never used after it.
 */
export class Fd implements Disposable {
  #number: number;

  protected constructor(
    number: number,
    /** What it is, for people: `eventfd`, `shared memory`. */ readonly kind: string,
  ) {
    this.#number = number;
  }

  /**
   * Takes ownership of what a system call returned.
   *
   * @param number The result of the call; negative means that it failed.
   * @param what What the call was to do, for the error.
   * @throws {SystemError} If the call failed.
   */
  static from(number: number, kind: string, what: string): Fd {
    if (number < 0) throw new SystemError(what, errno());
    return new Fd(number, kind);
  }

  /** Takes ownership of an open descriptor, such as one that was received. */
  static adopt(number: number, kind: string): Fd {
    if (!Number.isInteger(number) || number < 0) {
      throw new RangeError(`Cannot adopt fd ${number}: not a descriptor`);
    }
    return new Fd(number, kind);
  }

  /** The descriptor's number, to be used while this object is held. Throws if it was closed. */
  get number(): number {
    if (this.#number < 0) throw new Error(`Cannot use ${this.kind}: its fd is closed`);
    return this.#number;
  }

  get closed(): boolean {
    return this.#number < 0;
  }

  /** A second descriptor of the same open file, with an owner of its own. */
  duplicate(): Fd {
    return Fd.from(libc.fcntl(this.number, F_DUPFD_CLOEXEC, 0), this.kind, `duplicate ${this.kind} fd`);
  }

  stat(): FileStatus {
    if (libc.fstat(this.number, statBuffer) < 0) throw new SystemError(`look at ${this.kind} fd`, errno());
    return {
      device: statView.getBigUint64(0, true),
      inode: statView.getBigUint64(8, true),
      mode: statView.getUint32(modeOffset, true),
      bytes: Number(statView.getBigInt64(48, true)),
    };
  }

  /**
   * Reads a part of a file. Unlike a mapping it cannot kill the process when the file shrinks meanwhile, and it
   * leaves the file position, which may be shared with other processes, as it is.
   *
   * @returns How many bytes were stored: fewer than fit only at the end of the file.
   * @throws {SystemError} With code `ESPIPE` where this is no file.
   */
  readAt(offset: number, into: Uint8Array<ArrayBuffer>): number {
    let stored = 0;
    while (stored < into.length) {
      const rest = into.subarray(stored);
      const count = libc.pread(this.number, rest, rest.length, BigInt(offset + stored));
      if (count < 0) throw new SystemError(`read ${this.kind}`, errno());
      if (count === 0) break;
      stored += count;
    }
    return stored;
  }

  /**
   * Writes a part of a file, and leaves the file position as it is.
   *
   * @throws {SystemError} If there is no room for all of it.
   */
  writeAt(offset: number, bytes: Uint8Array<ArrayBuffer>): void {
    for (let written = 0; written < bytes.length;) {
      const rest = bytes.subarray(written);
      const count = rareLibc().pwrite(this.number, rest, rest.length, BigInt(offset + written));
      if (count < 0) throw new SystemError(`write ${this.kind}`, errno());
      written += count;
    }
  }

  /** Keeps programs that this process starts from getting it too: what was inherited itself lacks that. */
  setCloseOnExec(): void {
    if (libc.fcntl(this.number, F_SETFD, FD_CLOEXEC) < 0) {
      throw new SystemError(`change ${this.kind} fd`, errno());
    }
  }

  /** Whether it was opened for writing, alone or beside reading. */
  get writable(): boolean {
    const flags = libc.fcntl(this.number, F_GETFL, 0);
    if (flags < 0) throw new SystemError(`look at ${this.kind} fd`, errno());
    return (flags & O_ACCMODE) !== 0;
  }

  setNonBlocking(on: boolean): void {
    const flags = libc.fcntl(this.number, F_GETFL, 0);
    if (flags < 0 || libc.fcntl(this.number, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0) {
      throw new SystemError(`change the mode of ${this.kind} fd`, errno());
    }
  }

  /** Closes the descriptor. Does nothing the second time. */
  close(): void {
    if (this.#number < 0) return;
    libc.close(this.#number);
    this.#number = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Closes each of a list of descriptors. */
export function closeAll(fds: Iterable<Fd>): void {
  for (const fd of fds) fd.close();
}

/**
 * Duplicates each of a list of descriptors, or none.
 *
 * @throws {SystemError} With code `EMFILE` where this process may not open so many.
 */
export function duplicateAll(fds: readonly Fd[]): Fd[] {
  using cleanup = new DisposableStack();
  const duplicates = fds.map((fd) => cleanup.use(fd.duplicate()));
  cleanup.move();
  return duplicates;
}

/**
 * Makes room for many fds in the kernel's table of this process, off the main thread.
 *
 * The table doubles whenever it is full, and each time the kernel waits until all CPUs have seen it where a process
 * has several threads, as Deno has: 8 to 16 ms each, in the middle of whatever needs the fd. Once is enough.
 *
 * @param count How many. Where that cannot be, as beyond what the process may open, this does nothing.
 */
export async function reserveFds(count = 16_384): Promise<void> {
  const any = libc.epoll_create1(EPOLL_CLOEXEC);
  const highest = await libc.fcntl_async(any, F_DUPFD_CLOEXEC, count - 1);
  for (const fd of [any, highest]) if (fd >= 0) libc.close(fd);
}
