/**
 * What is to be called back at a time.
 *
 * Invariant: timers of the same length are due in the order in which they were set, so that of each length only the
 * first is ever looked at. Programs have few lengths, and thousands of timers of some.
 */

/** A timer that was set. */
export interface Timer {
  readonly due: number;
  /** null once it was cancelled. */
  callback: (() => void) | null;
}

/** Timers, without a clock of their own: times are in milliseconds, from wherever the caller counts. */
export class TimerQueue {
  readonly #byLength = new Map<number, Set<Timer>>();

  /** Whether nothing is to be called back. */
  get empty(): boolean {
    return this.#byLength.size === 0;
  }

  /** When the next is due; infinity for never. */
  get nextDue(): number {
    let next = Infinity;
    for (const timers of this.#byLength.values()) next = Math.min(next, first(timers).due);
    return next;
  }

  /** Sets a timer. Returns how to cancel it. */
  set(now: number, ms: number, callback: () => void): () => void {
    const timer: Timer = { due: now + ms, callback };
    let timers = this.#byLength.get(ms);
    if (timers === undefined) this.#byLength.set(ms, timers = new Set());
    timers.add(timer);
    return () => {
      timer.callback = null;
      this.#remove(ms, timers, timer);
    };
  }

  #remove(ms: number, timers: Set<Timer>, timer: Timer): void {
    if (timers.delete(timer) && timers.size === 0) this.#byLength.delete(ms);
  }

  /** Takes out all that are due, in the order of their times. Each may be cancelled until it is called. */
  take(now: number): Timer[] {
    const due: Timer[] = [];
    for (const [ms, timers] of this.#byLength) {
      for (const timer of timers) {
        if (timer.due > now) break;
        due.push(timer);
        this.#remove(ms, timers, timer);
      }
    }
    return due.sort((a, b) => a.due - b.due);
  }
}

function first(timers: Set<Timer>): Timer {
  return timers.values().next().value!;
}
