/** Telling publishers which slots were retired, through packet pipes (specification, section 5.17). */

import { writeInt32 } from "../ffi/pipe.ts";

/** Notifications kept per pipe that does not take them. */
const UNSENT_LIMIT = 4096;

/**
 * Sends slot ids to the publishers that asked for them, and waits for nobody.
 *
 * A pipe takes 16 notifications that its publisher has not read; the reference then stops until it does (section
 * 9.2, 21). Here, what a pipe refuses is kept, each slot once, and sent before the next one. The pipes must be
 * non-blocking; they stay the caller's.
 */
export class RetirementNotifier {
  #pipes: readonly number[] = [];
  readonly #unsent = new Map<number, Set<number>>();

  /** Replaces the pipes: the numbers of their write ends, open until they are replaced in turn. */
  setPipes(fdNumbers: readonly number[]): void {
    this.#pipes = fdNumbers;
    this.#unsent.clear();
  }

  /** Whether anybody wants to know. */
  get wanted(): boolean {
    return this.#pipes.length > 0;
  }

  /** Notifications that wait for a pipe to have room. */
  get unsent(): number {
    let count = 0;
    for (const ids of this.#unsent.values()) count += ids.size;
    return count;
  }

  notify(slotId: number): void {
    for (const pipe of this.#pipes) {
      if (this.#flush(pipe) && writeInt32(pipe, slotId)) continue;
      let ids = this.#unsent.get(pipe);
      if (ids === undefined) this.#unsent.set(pipe, ids = new Set());
      if (ids.size < UNSENT_LIMIT) ids.add(slotId);
    }
  }

  /** Tries again to send what is left. */
  flush(): void {
    for (const pipe of [...this.#unsent.keys()]) this.#flush(pipe);
  }

  /** Sends what is left for a pipe. Returns whether that was all. */
  #flush(pipe: number): boolean {
    const ids = this.#unsent.get(pipe);
    if (ids === undefined) return true;
    for (const id of ids) {
      if (!writeInt32(pipe, id)) return false;
      ids.delete(id);
    }
    this.#unsent.delete(pipe);
    return true;
  }
}
