/**
 * The event loop: one epoll, waited for off the main thread when idle and drained synchronously after a wake-up.
 *
 * Invariants: a callback runs only for a watch that is open, and never before `watch` has returned it; the process is
 * kept alive exactly as long as a watch is open; timers, promises and signal listeners run between rounds however busy
 * the fds are.
 */

import { Epoll, Ready } from "./epoll.ts";
import { createEventFd, drain, signal } from "./eventfd.ts";
import type { Fd } from "./fd.ts";

export { Ready };

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
  readonly #epoll = new Epoll(EVENTS_MAX);
  readonly #waker = createEventFd();
  readonly #callbacks = new Map<number, ReadyCallback>();
  #nextToken = 1;
  #running = false;

  constructor() {
    this.#epoll.add(this.#waker.number, Ready.readable | Ready.edge, 0);
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
    this.#epoll.add(number, events, token);
    this.#callbacks.set(token, callback);
    if (!this.#running) this.#run();
    const close = () => {
      if (!this.#callbacks.delete(token)) return;
      this.#epoll.remove(number);
      if (this.#callbacks.size === 0) signal(this.#waker.number);
    };
    return {
      rearm: (bits) => {
        if (this.#callbacks.has(token)) this.#epoll.modify(number, bits, token);
      },
      close,
      [Symbol.dispose]: close,
    };
  }

  async #run(): Promise<void> {
    this.#running = true;
    // Whoever watches something that is ready gets its watch first, and then the callback.
    await null;
    let busyRounds = 0;
    while (this.#callbacks.size > 0) {
      let count = busyRounds < BUSY_ROUNDS_MAX ? this.#epoll.wait(0) : 0;
      if (count > 0) busyRounds++;
      else {
        // Either idle, or busy for long: this wait also lets timers and signals run.
        const timeout = busyRounds < BUSY_ROUNDS_MAX ? -1 : 0;
        busyRounds = 0;
        count = await this.#epoll.waitAsync(timeout);
      }
      this.#dispatch(count);
      await null;
    }
    this.#running = false;
  }

  #dispatch(count: number): void {
    for (let i = 0; i < count; i++) {
      const token = this.#epoll.token(i);
      if (token === 0) {
        drain(this.#waker.number);
        continue;
      }
      try {
        this.#callbacks.get(token)?.(this.#epoll.ready(i));
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
