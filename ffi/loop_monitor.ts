/** How long the event loop was too busy to do what was due: whoever waits for this process waits for that. */

import { operatingSystem, type System } from "./system.ts";

/** How often it is looked at. */
const BEAT_MS = 100;
/** What is late by less is the scheduler's doing. */
const STALL_MS = 25;

/** Notices when the event loop stalls, as long as it lives. */
export class LoopMonitor implements Disposable {
  /** Times that something was late. */
  stalls = 0;
  /** For how long, all together, and the worst time. */
  stalledMs = 0;
  worstMs = 0;
  #cancel: () => void = () => {};

  constructor(private readonly system: Pick<System, "after" | "monotonicMs"> = operatingSystem) {
    this.#beat();
  }

  #beat(): void {
    const due = this.system.monotonicMs() + BEAT_MS;
    this.#cancel = this.system.after(BEAT_MS, () => {
      this.note(this.system.monotonicMs() - due);
      this.#beat();
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
    this.#cancel();
  }
}
