/**
 * The event loop: one epoll, waited for off the main thread when idle and drained synchronously after a wake-up; and
 * timers of its own, as the first of Deno's loads Node's part of it, which takes a server a tenth of its start.
 *
 * Invariants: a callback runs only for a watch that is open, and never before `watch` has returned it; the process is
 * kept alive exactly as long as a watch is open or a timer set; promises and signal listeners run between rounds however
 * busy the fds are.
 */

import { monotonicMs } from "./clock.ts";
import { Epoll, Ready } from "./epoll.ts";
import { createEventFd, drain, signal } from "./eventfd.ts";
import type { Fd } from "./fd.ts";
import { TimerQueue } from "./timer_queue.ts";

export { Ready };

const EVENTS_MAX = 256;

/** Synchronous rounds before the rest of the process gets its turn. */
const BUSY_ROUNDS_MAX = 8;

/** The longest wait; a timer may take several. */
const WAIT_MS_MAX = 0x7fff_ffff;

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
  readonly #timers = new TimerQueue();
  /** When a wait that is on its way ends at the latest; earlier than all times while there is none. */
  #waitingUntil = -Infinity;
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
      if (this.#idle) this.#wake();
    };
    return {
      rearm: (bits) => {
        if (this.#callbacks.has(token)) this.#epoll.modify(number, bits, token);
      },
      close,
      [Symbol.dispose]: close,
    };
  }

  /** Calls back once, after so many milliseconds. Returns how to prevent it. */
  after(ms: number, callback: () => void): () => void {
    const now = monotonicMs(), cancel = this.#timers.set(now, ms, callback);
    if (!this.#running) this.#run();
    else if (now + ms < this.#waitingUntil) this.#wake();
    return () => {
      cancel();
      if (this.#idle) this.#wake();
    };
  }

  get #idle(): boolean {
    return this.#callbacks.size === 0 && this.#timers.empty;
  }

  /** Ends a wait that is on its way. */
  #wake(): void {
    this.#waitingUntil = -Infinity;
    signal(this.#waker.number);
  }

  async #run(): Promise<void> {
    this.#running = true;
    // Whoever watches something that is ready gets its watch first, and then the callback.
    await null;
    let busyRounds = 0;
    while (!this.#idle) {
      let count = busyRounds < BUSY_ROUNDS_MAX ? this.#epoll.wait(0) : 0;
      if (count > 0) busyRounds++;
      else {
        // Either idle, or busy for long: this wait also lets promises and signals run.
        const timeout = busyRounds < BUSY_ROUNDS_MAX ? this.#msUntilTimer() : 0;
        busyRounds = 0;
        count = await this.#epoll.waitAsync(timeout);
        this.#waitingUntil = -Infinity;
      }
      this.#dispatch(count);
      if (!this.#timers.empty) this.#runTimers();
      await null;
    }
    this.#running = false;
  }

  /** How long to wait: -1 for as long as it takes. */
  #msUntilTimer(): number {
    const next = this.#waitingUntil = this.#timers.nextDue;
    return next === Infinity ? -1 : Math.min(Math.max(0, Math.ceil(next - monotonicMs())), WAIT_MS_MAX);
  }

  #runTimers(): void {
    for (const timer of this.#timers.take(monotonicMs())) {
      try {
        timer.callback?.();
      } catch (error) {
        reportError(error);
      }
    }
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
