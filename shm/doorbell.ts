/**
 * Doorbells: an eventfd is written only to wake somebody who sleeps (docs/extensions.md). The two sides of one: a user
 * that sleeps, and whoever wakes it.
 */

import { signal } from "../ffi/eventfd.ts";
import { arena } from "./arena.ts";
import type { ControlBlocks } from "./control_blocks.ts";
import { Limit } from "./layout.ts";
import { RingerStruct } from "./structs.ts";

/** The kinds of users that sleep: subscribers until there is a message, reliable publishers until there is a slot. */
export type SleeperKind = "subscribers" | "publishers";

/** A user's eventfd. */
export interface Trigger {
  /** Open until it is replaced. */
  readonly fdNumber: number;
  /** The user, if it says when it sleeps; -1: it is always written to. */
  readonly sleeperId: number;
}

/** The sleeping side: what a user says of itself. Does nothing where the channel has no doorbells. */
export class SleepFlag {
  readonly #core = arena().core;
  readonly #bell: number;
  readonly #id: number;

  /** @param blocks Must outlive the flag's use. */
  constructor(blocks: ControlBlocks, kind: SleeperKind, id: number) {
    this.#bell = blocks.doorbell(kind);
    this.#id = id;
  }

  /** Says that the user sleeps. Look once more after that, and sleep only then. */
  fallAsleep(): void {
    if (this.#bell !== 0) this.#core.fallAsleep(this.#bell, this.#id);
  }

  /** Says that it does not sleep any more; else it is woken once for nothing. */
  wakeUp(): void {
    if (this.#bell !== 0) this.#core.wakeUp(this.#bell, this.#id);
  }

  /** Says that the user sleeps by means of its own, and wants its eventfd written every time from now on. */
  staySignalled(): void {
    if (this.#bell !== 0) this.#core.staySignalled(this.#bell, this.#id);
  }
}

/** The waking side. */
export class Ringer implements Disposable {
  readonly #core = arena().core;
  /** Address of the core's `RingerStruct`. */
  readonly struct: number;
  readonly #hasBell: boolean;
  /** Written to every time. */
  #always: readonly number[] = [];
  /** By user id. */
  #sleepers: readonly number[] = [];

  /** @param blocks Must outlive the ringer. */
  constructor(blocks: ControlBlocks, kind: SleeperKind) {
    const bell = blocks.doorbell(kind);
    this.#hasBell = bell !== 0;
    this.struct = arena().allocate(RingerStruct.bytes);
    arena().u32[(this.struct + RingerStruct.bell) >>> 2] = bell;
  }

  /** Replaces those who can be woken. Whoever is new must be signalled once: what happened before was not for it. */
  setTriggers(triggers: readonly Trigger[]): void {
    const always: number[] = [], sleepers: number[] = [];
    const known = arena().u8.subarray(
      this.struct + RingerStruct.known,
      this.struct + RingerStruct.known + Limit.users / 8,
    );
    known.fill(0);
    for (const { fdNumber, sleeperId } of triggers) {
      if (!this.#hasBell || !(sleeperId >= 0 && sleeperId < Limit.users)) {
        always.push(fdNumber);
        continue;
      }
      sleepers[sleeperId] = fdNumber;
      known[sleeperId >> 3] |= 1 << (sleeperId & 7);
    }
    this.#always = always;
    this.#sleepers = sleepers;
  }

  /** Wakes everybody, after what they wait for has become visible. */
  ring(): void {
    this.ringFrom(this.#core.beginRinging(this.struct));
  }

  /** As `ring`, where the core has begun: it has found this sleeper, or none (-1). */
  ringFrom(first: number): void {
    const always = this.#always;
    for (let i = 0; i < always.length; i++) signal(always[i]);
    this.#wake(first);
  }

  /** Wakes those who say that they sleep. */
  ringSleepers(): void {
    this.#wake(this.#core.beginRinging(this.struct));
  }

  /** @param first As in `ringFrom`. */
  #wake(first: number): void {
    for (let id = first; id >= 0; id = this.#core.goOnRinging(this.struct)) signal(this.#sleepers[id]);
  }

  [Symbol.dispose](): void {
    arena().free(this.struct, RingerStruct.bytes);
  }
}
