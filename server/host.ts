/** What a channel table needs of the machine that it runs on: passed in, so that a simulation can take its place. */

import { monotonicNs } from "../ffi/clock.ts";
import { listDirectory } from "../ffi/directory.ts";
import { createEventFd, signal } from "../ffi/eventfd.ts";
import type { Fd } from "../ffi/fd.ts";
import { unlinkFile, unlinkNamed } from "../ffi/memory_object.ts";
import { createPacketPipe, writeInt32 } from "../ffi/pipe.ts";
import { gid, processExists, uid } from "../ffi/process.ts";

/** The machine. Nothing here waits. */
export interface Host {
  readonly userId: number;
  readonly groupId: number;
  monotonicNs(): bigint;
  processExists(pid: number): boolean;
  createEventFd(): Fd;
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

/** This machine. */
export const systemHost: Host = {
  userId: uid(),
  groupId: gid(),
  monotonicNs,
  processExists,
  createEventFd,
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
