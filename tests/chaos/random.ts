import { flag, integer } from "../../cli/flags.ts";

/** The flag of commands that do what a seed says. */
export const seedFlag = flag({
  type: integer(-1, 0x7fff_ffff, "SEED"),
  default: -1,
  description: "Seed of what is done; -1 for one from the clock",
});

/** The seed of a `seedFlag`. */
export const chosenSeed = (value: number): number => value < 0 ? Date.now() % 2 ** 30 : value;

/** A random generator that replays from its seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A number from 0 up to 1, without 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0 up to `count`, without `count`. */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }
}
