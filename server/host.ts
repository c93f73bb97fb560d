/** What a channel table needs of the machine that it runs on: passed in, so that a simulation can take its place. */

import { monotonicNs } from "../ffi/clock.ts";
import { listDirectory } from "../ffi/directory.ts";
import { createEventFd, signal } from "../ffi/eventfd.ts";
import { Errno, SystemError } from "../ffi/errno.ts";
import type { Fd } from "../ffi/fd.ts";
import { createMemory, type MemoryAllocator, unlinkFile, unlinkNamed } from "../ffi/memory_object.ts";
import { createPacketPipe, writeInt32 } from "../ffi/pipe.ts";
import { gid, openProcess, pidNamespace, processStart, uid } from "../ffi/process.ts";
import { reactor, Ready } from "../ffi/reactor.ts";
import { fdLimit } from "../ffi/resource_limits.ts";

/** The machine. Nothing here waits. */
export interface Host {
  readonly userId: number;
  readonly groupId: number;
  monotonicNs(): bigint;
  /** Where this process sees the ids of processes; 0 where that is unknown. */
  readonly pidNamespace: bigint;
  /** When a process started; null where there is none, or it has ended; 0 where that is unknown. */
  processStart(pid: number): bigint | null;
  /** Calls back once a process has ended, until that is disposed of; null where that cannot be. */
  watchProcess(pid: number, ended: () => void): Disposable | null;
  /** Makes shared memory, zeroed. */
  readonly createMemory: MemoryAllocator;
  createEventFd(): Fd;
  /** Throws where an fd that was received may not be kept for that, as only those are left that are reserved. */
  checkRoomFor(fd: Fd, what: string): void;
  createPacketPipe(): [read: Fd, write: Fd];
  /** Wakes whoever waits for an eventfd. Does nothing where the fd is something else. */
  trigger(eventFd: Fd): void;
  /** Writes a slot id into a retirement pipe; false where it is full or nobody reads it any more. */
  notifyRetired(pipe: Fd, slotId: number): boolean;
  /** Names of all shared memory objects of the machine. */
  listSharedMemory(): string[];
  /** Removes `/dev/shm/NAME`. Returns whether there was one. */
  removeSharedMemory(name: string): boolean;
  /** Removes a file. Returns whether there was one. */
  removeFile(path: string): boolean;
}

/** Fds kept for connections, shadows and inspection: users of channels may not take the last ones. */
const FDS_RESERVED = 64;

/** @throws {SystemError} With code `EMFILE` where only reserved ones are left: the kernel gives the lowest number. */
function checkRoomFor(fd: Fd, what: string): void {
  if (fd.number < fdLimit().soft - FDS_RESERVED) return;
  throw new SystemError(
    `${what}, as the server has as many fds open as it may (ulimit -n, --max_fds)`,
    Errno.EMFILE,
  );
}

function createUserEventFd(): Fd {
  using cleanup = new DisposableStack();
  const fd = cleanup.use(createEventFd());
  checkRoomFor(fd, "add another user");
  cleanup.move();
  return fd;
}

function watchProcess(pid: number, ended: () => void): Disposable | null {
  using cleanup = new DisposableStack();
  const process = openProcess(pid);
  if (process === null) return null;
  cleanup.use(process);
  cleanup.use(reactor().watch(process, Ready.readable | Ready.once, ended));
  return cleanup.move();
}

/** This machine. */
export const systemHost: Host = {
  userId: uid(),
  groupId: gid(),
  monotonicNs,
  pidNamespace: pidNamespace(),
  processStart,
  watchProcess,
  createMemory,
  createEventFd: createUserEventFd,
  checkRoomFor,
  createPacketPipe,
  trigger: (eventFd) => {
    try {
      signal(eventFd.number);
    } catch {
      // A recovered fd may be anything; whoever waits for it is none of our clients then.
    }
  },
  notifyRetired: (pipe, slotId) => writeInt32(pipe.number, slotId),
  listSharedMemory: () => listDirectory("/dev/shm"),
  removeSharedMemory: unlinkNamed,
  removeFile: unlinkFile,
};
