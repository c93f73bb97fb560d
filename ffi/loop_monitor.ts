/** How long the event loop was too busy to do what was due: whoever waits for this process waits for that. */

import { operatingSystem, type System } from "./system.ts";

/** How often it is looked at. */
const BEAT_MS = 100;
/** What is late by less is the scheduler's doing. */
const STALL_MS = 25;

/** Notices when the event loop stalls while there is something to do. Where there is nothing it costs nothing. */
export class LoopMonitor implements Disposable {
  /** Times that something was late. */
  stalls = 0;
  /** For how long, all together, and the worst time. */
  stalledMs = 0;
  worstMs = 0;
  #cancel: (() => void) | null = null;
  /** Whether there was something to do since the last beat. */
  #busy = false;

  constructor(private readonly system: Pick<System, "after" | "monotonicMs"> = operatingSystem) {}

  /** There is something to do: from now on it is looked whether what is due is late. */
  touch(): void {
    this.#busy = true;
    if (this.#cancel === null) this.#beat();
  }

  #beat(): void {
    this.#busy = false;
    const due = this.system.monotonicMs() + BEAT_MS;
    this.#cancel = this.system.after(BEAT_MS, () => {
      this.#cancel = null;
      this.note(this.system.monotonicMs() - due);
      if (this.#busy) this.#beat();
    });
  }

  /** Takes in how late something was. */
  note(lateMs: number): void {
    if (lateMs < STALL_MS) return;
    this.stalls++;
    this.stalledMs += lateMs;
    this.worstMs = Math.max(this.worstMs, lateMs);
  }

  [Symbol.dispose](): void {
    this.#cancel?.();
    this.#cancel = null;
  }
}
