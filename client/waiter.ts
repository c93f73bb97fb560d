/** Waiting for a trigger: with the event loop, or without it. */

import { drain, signal as ring } from "../ffi/eventfd.ts";
import type { Fd } from "../ffi/fd.ts";
import { pollSync } from "../ffi/poll.ts";
import { reactor, Ready, type Watch } from "../ffi/reactor.ts";
import type { Control } from "./control.ts";

/** How to wait. */
export interface WaitOptions extends SyncWaitOptions {
  /** Ends the wait: the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
}

/** How to wait on this thread. */
export interface SyncWaitOptions {
  /** How long at most, in milliseconds. Default: for ever. */
  timeoutMs?: number;
  /** Number of another fd: the wait also ends, as if its time was over, when that is readable. Default: none. */
  fd?: number;
}

/** Waits that were over at once before the event loop gets its turn. */
const BREATH_EVERY = 256;
/** How long a synchronous wait sleeps at most while the server is away, so that it is found when it is back. */
const DISCONNECTED_POLL_MS = 5;

interface Pending {
  settle(outcome: boolean | Error): void;
}

/**
 * Waits until a condition holds that a trigger announces.
 *
 * Whether to go on is decided by looking, never by the trigger alone: it may be left from before, and is emptied
 * before each look.
 */
export class Waiter {
  readonly #control: Control;
  readonly #ready: () => boolean;
  readonly #recheckMs: number;
  #fd: Fd;
  #watch: Watch | null = null;
  #armed = false;
  readonly #pending = new Set<Pending>();
  #breathers: (() => void)[] = [];
  #quickWaits = 0;

  /**
   * @param fd The trigger; owned from now on.
   * @param ready The condition. What it throws ends the waits.
   * @param recheckMs How often to look without a trigger, for conditions that nobody may announce.
   */
  constructor(control: Control, fd: Fd, ready: () => boolean, recheckMs = Infinity) {
    this.#control = control;
    this.#fd = fd;
    this.#ready = ready;
    this.#recheckMs = recheckMs;
  }

  /** The trigger's number, for waking oneself. */
  get fdNumber(): number {
    return this.#fd.number;
  }

  /** Replaces the trigger. */
  replace(fd: Fd): void {
    this.#watch?.close();
    this.#watch = null;
    this.#armed = false;
    this.#fd.close();
    this.#fd = fd;
    this.#breatheOut();
    this.look();
  }

  /** Resolves to true when the condition holds, to false after the time or when the waiter is disposed. */
  wait({ timeoutMs = Infinity, fd, signal }: WaitOptions = {}): Promise<boolean> {
    return new Promise<boolean>((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#ready()) {
        if (++this.#quickWaits % BREATH_EVERY !== 0) return resolve(true);
        return this.breathe().then(() => resolve(true));
      }
      const timer = timeoutMs === Infinity ? undefined : setTimeout(() => pending.settle(false), timeoutMs);
      const recheck = this.#recheckMs === Infinity
        ? undefined
        : setInterval(() => this.look(), this.#recheckMs);
      const abort = () => pending.settle(signal!.reason);
      const pending: Pending = {
        settle: (outcome) => {
          this.#pending.delete(pending);
          clearTimeout(timer);
          clearInterval(recheck);
          extra?.close();
          signal?.removeEventListener("abort", abort);
          if (typeof outcome === "boolean") resolve(outcome);
          else reject(outcome);
        },
      };
      signal?.addEventListener("abort", abort);
      this.#pending.add(pending);
      const extra = fd === undefined
        ? undefined
        : reactor().watch({ number: fd }, Ready.readable | Ready.once, () => pending.settle(false));
      this.#arm();
    });
  }

  /** Gives the event loop a turn: whoever is always ready would starve timers and signals. */
  breathe(): Promise<void> {
    return new Promise((resolve) => {
      this.#breathers.push(resolve);
      ring(this.#fd.number);
      this.#arm();
    });
  }

  /** Waits on this thread; timers and promises rest. Returns whether the condition holds. */
  waitSync({ timeoutMs = Infinity, fd }: SyncWaitOptions): boolean {
    if (this.#ready()) return true;
    const deadline = performance.now() + timeoutMs;
    do {
      const left = deadline - performance.now();
      if (left <= 0) return false;
      const most = Math.min(left, this.#recheckMs, this.#control.connected ? Infinity : DISCONNECTED_POLL_MS);
      if (this.#sleep(most, fd)) return this.#ready();
    } while (!this.#ready());
    return true;
  }

  /** Sleeps until the trigger is pulled, or the server has sent something; takes both. Returns whether another fd is readable. */
  #sleep(mostMs: number, fd?: number): boolean {
    const trigger = this.#fd.number, { socketNumber } = this.#control;
    const fds = socketNumber < 0 ? [trigger] : [trigger, socketNumber];
    if (fd !== undefined) fds.push(fd);
    const readable = pollSync(fds, mostMs === Infinity ? -1 : mostMs);
    if (readable.includes(trigger)) drain(trigger);
    if (socketNumber < 0 || readable.includes(socketNumber)) this.#control.pump();
    return fd !== undefined && readable.includes(fd);
  }

  /** Looks whether those who wait can go on. */
  look(): void {
    if (this.#pending.size === 0) return;
    try {
      if (this.#ready()) { for (const pending of [...this.#pending]) pending.settle(true); }
      else this.#arm();
    } catch (error) {
      for (const pending of [...this.#pending]) pending.settle(error as Error);
    }
  }

  #arm(): void {
    if (this.#armed) return;
    this.#armed = true;
    if (this.#watch !== null) this.#watch.rearm(Ready.readable | Ready.once);
    else this.#watch = reactor().watch(this.#fd, Ready.readable | Ready.once, () => this.#triggered());
  }

  #breatheOut(): void {
    for (const resolve of this.#breathers.splice(0)) resolve();
  }

  #triggered(): void {
    this.#armed = false;
    drain(this.#fd.number);
    this.#breatheOut();
    this.look();
  }

  /** Ends all waits: with false, or with a failure. */
  close(failure: Error | null): void {
    this.#watch?.close();
    this.#fd.close();
    this.#breatheOut();
    for (const pending of [...this.#pending]) pending.settle(failure ?? false);
  }
}
