/** Waiting for a trigger: with the event loop, or without it. */

import { monotonicMs } from "../ffi/clock.ts";
import { drain, signal as ring } from "../ffi/eventfd.ts";
import { Fd } from "../ffi/fd.ts";
import type { SleepFlag } from "../shm/doorbell.ts";
import { EventFdWatch } from "../ffi/eventfd_watch.ts";
import { reactor, Ready } from "../ffi/reactor.ts";
import type { Control } from "./control.ts";
import { Sleeper, Woken } from "./sleeper.ts";

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

/**
 * Before it sleeps, a wait looks again for so long: about what being woken by another CPU takes. Two sides that hand each
 * other less work than that would else sleep by turns, each as long as the other takes to wake up. Only as long as it
 * mostly pays; while it does not, one wait of so many tries, and of more and more.
 */
const SPIN_MS = 0.025;
const SPIN_CREDIT_MAX = 8;
const SPIN_PROBE_EVERY = 128;
const SPIN_PROBE_EVERY_MAX = 8192;

/** Longer times make timers run out at once. */
const TIMER_MS_MAX = 0x7fff_ffff;

/** What is waited for. */
export interface Condition {
  /** Whether it holds. What it throws ends the waits. */
  holds(): boolean;
  /**
   * Whether it is worth looking whether it holds: to be asked again and again, and so without writing to what others
   * write to. May be wrong: it is looked before a sleep whatever it says.
   */
  mayHold(): boolean;
}

interface Pending {
  /** By the monotonic clock, in milliseconds. */
  readonly deadline: number;
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
  readonly #condition: Condition;
  readonly #recheckMs: number;
  #fd: Fd;
  #flag: SleepFlag;
  /** Whether the caller sleeps by means of its own. */
  #polled = false;
  #watch: EventFdWatch | null = null;
  #sleeper: Sleeper | null = null;
  readonly #pending = new Set<Pending>();
  #breathers: (() => void)[] = [];
  /** Runs out when somebody's time is up, or to look again; not before. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = Infinity;
  #quickWaits = 0;
  /** Grows with each wait that was over before it slept. */
  #spinCredit = SPIN_CREDIT_MAX;
  /** Waits until the next try, while there is no credit; and how many it was the last time. */
  #waitsToProbe = SPIN_PROBE_EVERY;
  #probeEvery = SPIN_PROBE_EVERY;

  /**
   * @param fd The trigger; owned from now on.
   * @param flag By which others know whether the trigger has to be pulled.
   * @param condition What is waited for.
   * @param recheckMs How often to look without a trigger, for conditions that nobody may announce.
   */
  constructor(control: Control, fd: Fd, flag: SleepFlag, condition: Condition, recheckMs = Infinity) {
    this.#control = control;
    this.#fd = fd;
    this.#flag = flag;
    this.#condition = condition;
    this.#recheckMs = recheckMs;
  }

  /** The trigger's number, for waking oneself. */
  get fdNumber(): number {
    return this.#fd.number;
  }

  /** The trigger's number, for sleeping by the caller's own means: it is pulled every time from now on. */
  get pollFd(): number {
    if (!this.#polled) {
      this.#polled = true;
      this.#watch?.close(); // It may have emptied the trigger.
      this.#watch = null;
      if (this.#isAwaited) this.#arm();
      this.#callForAttention();
    }
    return this.#fd.number;
  }

  /** Nobody has pulled the trigger for what is there already. */
  #callForAttention(): void {
    this.#flag.staySignalled();
    ring(this.#fd.number);
  }

  /**
   * To be called when a caller that sleeps by means of its own has found nothing: the trigger is let go. Returns
   * whether it was pulled, and so may have been for something that came after the look.
   */
  letGo(): boolean {
    return this.#polled && drain(this.#fd.number);
  }

  /** Replaces the trigger, and the flag. */
  replace(fd: Fd, flag: SleepFlag): void {
    this.#watch?.close();
    this.#watch = null;
    // It watches the old trigger as long as anybody has that open, under a number that may come again.
    this.#sleeper?.[Symbol.dispose]();
    this.#sleeper = null;
    this.#fd.close();
    this.#fd = fd;
    this.#flag = flag;
    if (this.#polled) this.#callForAttention();
    this.#breatheOut();
    this.look();
  }

  /** Resolves to true when the condition holds, to false after the time or when the waiter is disposed. */
  wait({ timeoutMs = Infinity, fd, signal }: WaitOptions = {}): Promise<boolean> {
    return new Promise<boolean>((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#condition.holds() || this.#spin()) {
        if (++this.#quickWaits % BREATH_EVERY !== 0) return resolve(true);
        return this.breathe().then(() => resolve(true));
      }
      // Before anything that would have to be taken back, as it throws where there is no such fd.
      const extra = fd === undefined ? null : watchOther(fd, () => pending.settle(false));
      const end = () => {
        this.#pending.delete(pending);
        if (this.#pending.size === 0) this.#flag.wakeUp();
        extra?.[Symbol.dispose]();
        signal?.removeEventListener("abort", abort);
      };
      const abort = () => {
        end();
        reject(signal!.reason);
      };
      const pending: Pending = {
        deadline: timeoutMs === Infinity ? Infinity : monotonicMs() + timeoutMs,
        settle: (outcome) => {
          end();
          if (typeof outcome === "boolean") resolve(outcome);
          else reject(outcome);
        },
      };
      signal?.addEventListener("abort", abort);
      this.#pending.add(pending);
      this.#setTimer(Math.min(pending.deadline, monotonicMs() + this.#recheckMs));
      this.look();
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

  /**
   * Has the timer run out at a time at the latest. It is left alone as long as it is early enough: setting one takes
   * longer than reading a message.
   */
  #setTimer(at: number): void {
    if (at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => this.#timeUp(), Math.min(Math.ceil(at - monotonicMs()), TIMER_MS_MAX));
  }

  #timeUp(): void {
    this.#timerAt = Infinity;
    this.look();
    const now = monotonicMs();
    for (const pending of [...this.#pending]) if (!(pending.deadline > now)) pending.settle(false);
    if (this.#pending.size === 0) return;
    let next = now + this.#recheckMs;
    for (const { deadline } of this.#pending) next = Math.min(next, deadline);
    this.#setTimer(next);
  }

  /** Waits on this thread; timers and promises rest. Returns whether the condition holds. */
  waitSync({ timeoutMs = Infinity, fd }: SyncWaitOptions): boolean {
    if (this.#condition.holds() || this.#spin()) return true;
    const deadline = timeoutMs === Infinity ? Infinity : monotonicMs() + timeoutMs;
    for (let left = timeoutMs; left > 0; left = deadline - monotonicMs()) {
      if (!this.#fallAsleep()) return true;
      const most = Math.min(
        left,
        this.#recheckMs,
        this.#control.connected ? Infinity : DISCONNECTED_POLL_MS,
      );
      // Who is woken mostly finds it, and need not say anew that it sleeps.
      if (this.#sleep(most, fd) || this.#condition.holds()) break;
    }
    const ready = this.#condition.holds();
    this.#flag.wakeUp();
    return ready;
  }

  /**
   * Says that it sleeps, and looks once more: whoever has something for it either sees that, or is seen. Returns whether
   * to sleep.
   */
  #fallAsleep(): boolean {
    while (true) {
      const flag = this.#flag;
      flag.fallAsleep();
      if (this.#condition.holds()) {
        this.#flag.wakeUp();
        return false;
      }
      if (flag === this.#flag) return true; // Else the look has found a server with other memory.
    }
  }

  /** Looks again and again for a moment. Returns whether the condition holds. */
  #spin(): boolean {
    if (this.#spinCredit === 0 && --this.#waitsToProbe > 0) return false;
    const end = monotonicMs() + SPIN_MS, condition = this.#condition;
    do {
      if (condition.mayHold() && condition.holds()) return this.#noteSpin(true);
    } while (monotonicMs() < end);
    return this.#noteSpin(false);
  }

  #noteSpin(paid: boolean): boolean {
    if (paid) this.#probeEvery = SPIN_PROBE_EVERY;
    else if (this.#spinCredit === 0) this.#probeEvery = Math.min(2 * this.#probeEvery, SPIN_PROBE_EVERY_MAX);
    this.#waitsToProbe = this.#probeEvery;
    this.#spinCredit = Math.max(0, Math.min(this.#spinCredit + (paid ? 1 : -1), SPIN_CREDIT_MAX));
    return paid;
  }

  /**
   * Sleeps until the trigger is pulled, or the server has sent something, which is taken. Returns whether another fd is
   * readable.
   */
  #sleep(mostMs: number, fd?: number): boolean {
    const { socket } = this.#control;
    const woken = (this.#sleeper ??= new Sleeper()).sleep(this.#fd, socket, mostMs, fd);
    if ((woken & Woken.bySocket) !== 0 || socket === null) this.#control.pump();
    return (woken & Woken.byOther) !== 0;
  }

  /** Looks whether those who wait can go on. */
  look(): void {
    if (this.#pending.size === 0) return;
    try {
      if (!this.#condition.holds() && this.#fallAsleep()) this.#arm();
      else for (const pending of [...this.#pending]) pending.settle(true);
    } catch (error) {
      for (const pending of [...this.#pending]) pending.settle(error as Error);
    }
  }

  /** Whether anybody wants to know when the trigger is pulled. */
  get #isAwaited(): boolean {
    return this.#pending.size > 0 || this.#breathers.length > 0;
  }

  #arm(): void {
    this.#watch ??= new EventFdWatch(this.#fd, !this.#polled, () => this.#triggered());
    this.#watch.resume();
  }

  #triggered(): void {
    if (!this.#isAwaited) return this.#watch!.pause(); // Somebody pulls it whether asked to or not.
    this.#breatheOut();
    this.look();
  }

  #breatheOut(): void {
    for (const resolve of this.#breathers.splice(0)) resolve();
  }

  /** Ends all waits: with false, or with a failure. */
  close(failure: Error | null): void {
    this.#watch?.close();
    clearTimeout(this.#timer);
    this.#sleeper?.[Symbol.dispose]();
    this.#fd.close();
    this.#breatheOut();
    for (const pending of [...this.#pending]) pending.settle(failure ?? false);
  }
}

/** Calls back when a caller's fd is readable. By an fd of its own: several may wait for the same one. */
function watchOther(fdNumber: number, callback: () => void): Disposable {
  using cleanup = new DisposableStack();
  const fd = cleanup.use(Fd.adopt(fdNumber, "the other fd of a wait").duplicate());
  cleanup.use(reactor().watch(fd, Ready.readable | Ready.once, callback));
  return cleanup.move();
}
