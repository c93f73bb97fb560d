/** epoll: many fds waited for at once. */

import { Errno, SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { errno, libc } from "./libc.ts";

/** What is waited for: bits, to be combined. */
export const Ready = {
  readable: 0x001,
  writable: 0x004,
  /** The fd is broken; always reported. */
  error: 0x008,
  /** The peer is gone; always reported. */
  hangup: 0x010,
  /** Report changes only, not states. */
  edge: 0x8000_0000,
  /** Report once, then rest until modified. */
  once: 0x4000_0000,
} as const;

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

/** `struct epoll_event` is packed on x86_64 only. */
const EVENT_BYTES = Deno.build.arch === "x86_64" ? 12 : 16;
const DATA_OFFSET = Deno.build.arch === "x86_64" ? 4 : 8;

/** A set of fds, each with a number to know it by. */
export class Epoll implements Disposable {
  readonly #fd = Fd.from(libc.epoll_create1(EPOLL_CLOEXEC), "epoll", "create an epoll");
  readonly #eventsMax: number;
  readonly #events: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #control = new Uint8Array(EVENT_BYTES);
  readonly #controlView = new DataView(this.#control.buffer);

  /** @param eventsMax Fds that one wait reports at the most; the others come with the next. */
  constructor(eventsMax: number) {
    this.#eventsMax = eventsMax;
    this.#events = new Uint8Array(EVENT_BYTES * eventsMax);
    this.#view = new DataView(this.#events.buffer);
  }

  /** Its own fd: readable while one of the set is ready. */
  get number(): number {
    return this.#fd.number;
  }

  /** @throws {SystemError} If the fd cannot be watched. */
  add(fdNumber: number, events: number, token: number): void {
    this.#ctl(EPOLL_CTL_ADD, fdNumber, events, token);
  }

  modify(fdNumber: number, events: number, token: number): void {
    this.#ctl(EPOLL_CTL_MOD, fdNumber, events, token);
  }

  /** Does nothing for an fd that was closed before: the kernel has forgotten it then. */
  remove(fdNumber: number): void {
    this.#ctl(EPOLL_CTL_DEL, fdNumber, 0, 0);
  }

  /**
   * Waits on this thread.
   *
   * @param timeoutMs Whole milliseconds; -1: for ever.
   * @returns How many fds are ready, to be asked for by index; none after a time-out or a signal.
   */
  wait(timeoutMs: number): number {
    return libc.epoll_wait(this.#fd.number, this.#events, this.#eventsMax, timeoutMs);
  }

  /** As `wait`, beside this thread. One at a time. */
  waitAsync(timeoutMs: number): Promise<number> {
    return libc.epoll_wait_async(this.#fd.number, this.#events, this.#eventsMax, timeoutMs);
  }

  /** The number of a ready fd. */
  token(index: number): number {
    return this.#view.getUint32(index * EVENT_BYTES + DATA_OFFSET, true);
  }

  /** The `Ready` bits of a ready fd. */
  ready(index: number): number {
    return this.#view.getUint32(index * EVENT_BYTES, true);
  }

  [Symbol.dispose](): void {
    this.#fd.close();
  }

  #ctl(operation: number, fdNumber: number, events: number, token: number): void {
    this.#controlView.setUint32(0, events, true);
    this.#controlView.setUint32(DATA_OFFSET, token, true);
    if (libc.epoll_ctl(this.#fd.number, operation, fdNumber, this.#control) === 0) return;
    const error = errno();
    if (operation === EPOLL_CTL_DEL && (error === Errno.EBADF || error === Errno.ENOENT)) return;
    throw new SystemError("watch an fd", error);
  }
}
