/**
 * What happened last in a channel table, for shadows that missed it.
 *
 * It says what changed, not how: whoever is told late is told what is there by then. So it holds no fd and no memory,
 * and whatever of it is told again changes nothing. Bounded; a shadow that missed more gets everything. No I/O.
 */

import type { ShadowEventInit } from "../wire/shadow_link.ts";

/** Something that a shadow has to be told. */
export type Change =
  | { readonly what: "channel" | "options"; readonly channelName: string }
  | { readonly what: "publisher" | "subscriber"; readonly channelName: string; readonly id: number }
  | { readonly what: "buffer"; readonly channelName: string; readonly key: string }
  /** Nothing can be looked up of what is gone. */
  | { readonly what: "removal"; readonly event: ShadowEventInit };

/** Changes that are kept unless told otherwise. */
export const JOURNAL_CHANGES_MAX = 16384;

/** The newest changes, counted from 1. */
export class Journal {
  #changes: Change[] = [];
  #end: number;

  /** @param end Of a journal that this one goes on with, without what is in it. */
  constructor(readonly changesMax = JOURNAL_CHANGES_MAX, end = 0) {
    this.#end = end;
  }

  /** Offset of the newest change; 0 before the first. */
  get end(): number {
    return this.#end;
  }

  append(change: Change): void {
    this.#changes.push(change);
    this.#end++;
    if (this.#changes.length >= 2 * this.changesMax) this.#changes = this.#changes.slice(-this.changesMax);
  }

  /** Whether all changes after an offset are here. */
  reaches(offset: number): boolean {
    return offset <= this.#end && this.#end - offset <= Math.min(this.#changes.length, this.changesMax);
  }

  /** The change with an offset, which must be here. */
  at(offset: number): Change {
    return this.#changes[this.#changes.length - 1 - (this.#end - offset)];
  }
}
