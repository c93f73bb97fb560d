/**
 * The event loop: one epoll, waited for off the main thread when idle and drained synchronously after a wake-up.
 *
 * Invariants: a callback runs only for a watch that is open; the process is kept alive exactly as long as a watch
 * is open; timers, promises and signal listeners run between rounds however busy the fds are.
 */

import { Errno, SystemError } from "./errno.ts";
import { createEventFd, drain, signal } from "./eventfd.ts";
import { Fd } from "./fd.ts";
import { errno, libc } from "./libc.ts";

/** What a watch waits for: bits, to be combined. */
export const Ready = {
  readable: 0x001,
  writable: 0x004,
  /** The fd is broken; always reported. */
  error: 0x008,
  /** The peer is gone; always reported. */
  hangup: 0x010,
  /** Report changes only, not states. */
  edge: 0x8000_0000,
  /** Report once, then rest until `rearm`. */
  once: 0x4000_0000,
} as const;

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

/** `struct epoll_event` is packed on x86_64 only. */
const EVENT_BYTES = Deno.build.arch === "x86_64" ? 12 : 16;
const DATA_OFFSET = Deno.build.arch === "x86_64" ? 4 : 8;
const EVENTS_MAX = 256;

/** Synchronous rounds before the rest of the process gets its turn. */
const BUSY_ROUNDS_MAX = 8;

/** Called with the `Ready` bits that hold. */
export type ReadyCallback = (ready: number) => void;

/** A file descriptor that the reactor watches. Close it before the fd. */
export interface Watch extends Disposable {
  /** Waits again, for these `Ready` bits; reports at once what holds already. */
  rearm(events: number): void;
  close(): void;
}

/** Watches fds and calls back. Most programs have one: `reactor()`. */
export class Reactor {
  readonly #epoll = Fd.from(libc.epoll_create1(EPOLL_CLOEXEC), "epoll", "create an epoll");
  readonly #waker = createEventFd();
  readonly #callbacks = new Map<number, ReadyCallback>();
  readonly #events = new Uint8Array(EVENT_BYTES * EVENTS_MAX);
  readonly #view = new DataView(this.#events.buffer);
  readonly #control = new Uint8Array(EVENT_BYTES);
  readonly #controlView = new DataView(this.#control.buffer);
  #nextToken = 1;
  #running = false;

  constructor() {
    this.#ctl(EPOLL_CTL_ADD, this.#waker.number, Ready.readable | Ready.edge, 0);
  }

  /**
   * Watches an fd until the watch is closed.
   *
   * @param events `Ready` bits. Without `edge` or `once` the callback runs again and again while they hold.
   * @throws {SystemError} If the fd cannot be watched.
   */
  watch(fd: Pick<Fd, "number">, events: number, callback: ReadyCallback): Watch {
    const token = this.#nextToken++;
    const number = fd.number;
    this.#ctl(EPOLL_CTL_ADD, number, events, token);
    this.#callbacks.set(token, callback);
    if (!this.#running) this.#run();
    const close = () => {
      if (!this.#callbacks.delete(token)) return;
      this.#ctl(EPOLL_CTL_DEL, number, 0, token);
      if (this.#callbacks.size === 0) signal(this.#waker.number);
    };
    return {
      rearm: (bits) => {
        if (this.#callbacks.has(token)) this.#ctl(EPOLL_CTL_MOD, number, bits, token);
      },
      close,
      [Symbol.dispose]: close,
    };
  }

  #ctl(operation: number, fdNumber: number, events: number, token: number): void {
    this.#controlView.setUint32(0, events, true);
    this.#controlView.setUint32(DATA_OFFSET, token, true);
    if (libc.epoll_ctl(this.#epoll.number, operation, fdNumber, this.#control) < 0) {
      const error = errno();
      // A watch may be closed after its fd was closed elsewhere: the kernel has then forgotten it already.
      if (operation === EPOLL_CTL_DEL && (error === Errno.EBADF || error === Errno.ENOENT)) return;
      throw new SystemError("watch an fd", error);
    }
  }

  async #run(): Promise<void> {
    this.#running = true;
    const epoll = this.#epoll.number;
    let busyRounds = 0;
    while (this.#callbacks.size > 0) {
      let count = busyRounds < BUSY_ROUNDS_MAX ? libc.epoll_wait(epoll, this.#events, EVENTS_MAX, 0) : 0;
      if (count > 0) busyRounds++;
      else {
        // Either idle, or busy for long: this wait also lets timers and signals run.
        const timeout = busyRounds < BUSY_ROUNDS_MAX ? -1 : 0;
        busyRounds = 0;
        count = await libc.epoll_wait_async(epoll, this.#events, EVENTS_MAX, timeout);
      }
      this.#dispatch(count);
      await null;
    }
    this.#running = false;
  }

  #dispatch(count: number): void {
    for (let i = 0; i < count; i++) {
      const at = i * EVENT_BYTES;
      const token = this.#view.getUint32(at + DATA_OFFSET, true);
      if (token === 0) {
        drain(this.#waker.number);
        continue;
      }
      try {
        this.#callbacks.get(token)?.(this.#view.getUint32(at, true));
      } catch (error) {
        reportError(error);
      }
    }
  }
}

let shared: Reactor | undefined;

/** The reactor of this process, made at first use. */
export function reactor(): Reactor {
  return shared ??= new Reactor();
}
