/**
 * Waiting for an eventfd with Deno's own event loop: without the reactor's thread, and so with half the switches between
 * threads.
 *
 * Deno documents no way to that. The handle beneath the sockets of `node:net` takes every fd that can be read, and reads
 * it. As that may change with any version, it is used only once it was seen to work in this process; see `EventFdWatch`
 * for what is done without.
 */

import { createEventFd, signal } from "./eventfd.ts";
import type { Fd } from "./fd.ts";

/** Of Node's `pipe_wrap`, what is used here. Results other than 0 are failures. */
interface PipeHandle {
  /** Owns the fd from now on. */
  open(fdNumber: number): number;
  readStart(): number;
  readStop(): number;
  unref(): void;
  close(): void;
  /** Gets what was read; nothing where that failed, after which there is no more. */
  onread: (bytes?: ArrayBuffer) => void;
}
interface PipeWrap {
  readonly Pipe: new (kind: number) => PipeHandle;
}
interface NodeProcess {
  binding?(name: string): unknown;
}

const KIND_SOCKET = 0;
/** Pulls that must have been reported, one after the other, until the way is believed to work. */
const PROBES = 2;

/** Tells whether it works; null while that is not known. */
let usable: boolean | null = null;
let probing = false;

/** Reports each pull of an eventfd, and empties it. */
export class LoopWatch {
  readonly #handle: PipeHandle;
  readonly #failed: () => void;

  private constructor(handle: PipeHandle, pulled: () => void, failed: () => void) {
    this.#handle = handle;
    this.#failed = failed;
    handle.onread = (bytes) => {
      if (bytes !== undefined) pulled();
      else this.#fail();
    };
  }

  /**
   * @param failed Called when it cannot go on, and has been closed.
   * @returns null where this is not known to work: the first call finds out, which takes a moment.
   */
  static start(fd: Fd, pulled: () => void, failed: () => void): LoopWatch | null {
    if (usable === null && !probing) probe();
    const handle = usable === true ? openHandle(fd) : null;
    if (handle === null) return null;
    const watch = new LoopWatch(handle, pulled, failed);
    if (handle.readStart() === 0) return watch;
    watch.close();
    return null;
  }

  #fail(): void {
    usable = false;
    this.close();
    this.#failed();
  }

  /** Reports nothing until `resume`, and leaves the eventfd alone. */
  pause(): void {
    this.#handle.readStop();
  }

  /** Goes on; reports at once what was pulled meanwhile. */
  resume(): void {
    if (this.#handle.readStart() !== 0) this.#fail();
  }

  close(): void {
    closeHandle(this.#handle);
  }
}

/** null where there are no such handles, or no more fds. */
function openHandle(fd: Fd): PipeHandle | null {
  let own: Fd | null = null;
  try {
    const { process } = globalThis as { process?: NodeProcess };
    const { Pipe } = process!.binding!("pipe_wrap") as PipeWrap;
    const handle = new Pipe(KIND_SOCKET);
    own = fd.duplicate();
    if (handle.open(own.number) === 0) return handle;
  } catch {
    // As good as a failure.
  }
  own?.close();
  return null;
}

function closeHandle(handle: PipeHandle): void {
  handle.onread = () => {};
  handle.close();
}

/** Finds out whether it works. The process does not stay alive for that. */
function probe(): void {
  let fd: Fd;
  try {
    fd = createEventFd();
  } catch {
    return; // No more fds: another time.
  }
  const handle = openHandle(fd);
  let reports = 0;
  const end = (works: boolean) => {
    usable = works;
    if (handle !== null) closeHandle(handle);
    fd.close();
  };
  probing = true;
  if (handle === null) return end(false);
  handle.onread = (bytes) => {
    if (bytes === undefined || ++reports === PROBES) end(bytes !== undefined);
    else signal(fd.number);
  };
  handle.unref();
  if (handle.readStart() !== 0) return end(false);
  signal(fd.number);
}
