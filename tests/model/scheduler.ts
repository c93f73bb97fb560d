/** A deterministic scheduler: one actor at a time makes one step, and a seed decides which. */

import type { Random } from "../chaos/random.ts";

/** Something that runs in steps and may be stopped for ever between two of them. */
export class Actor {
  #resume: (() => void) | null = null;
  #abort: (reason: Error) => void = () => {};
  /** Steps made. */
  steps = 0;
  done = false;
  killed = false;
  failure: Error | null = null;
  #wakes: (() => boolean) | null = null;
  #hasTimer = false;
  /** Whether the last sleep ended by its time. */
  wokenByTime = false;

  constructor(readonly name: string) {}

  /** To be awaited before each access to what is shared. */
  readonly step = (): Promise<void> =>
    new Promise((resolve, reject) => {
      this.#resume = resolve;
      this.#abort = reject;
    });

  /**
   * To be awaited to sleep until something holds: no step is made before.
   *
   * @param hasTimer Whether the sleep is over some time, which is when all others are done or sleep.
   */
  readonly sleep = (until: () => boolean, hasTimer = false): Promise<void> => {
    this.#wakes = until;
    this.#hasTimer = hasTimer;
    this.wokenByTime = false;
    return this.step();
  };

  /** Ends a sleep by its time. Returns whether there is such a sleep. */
  timeOut(): boolean {
    if (!this.asleep || !this.#hasTimer) return false;
    this.wokenByTime = true;
    this.#wakes = null;
    return true;
  }

  get asleep(): boolean {
    return this.#wakes !== null && !this.#wakes();
  }

  start(run: () => Promise<void>): void {
    const ended = (error?: unknown) => {
      this.done = true;
      if (error !== undefined) this.failure = error instanceof Error ? error : new Error(String(error));
    };
    this.step().then(run).then(() => ended(), ended);
  }

  /** Makes one step: to the next access, or to the end. */
  async advance(): Promise<void> {
    const resume = this.#resume!;
    this.#wakes = null;
    this.#resume = null;
    this.steps++;
    resume();
    while (this.#resume === null && !this.done) await null;
  }

  /** Frees the stack on which a killed actor still stands. Nothing of it runs any more. */
  async bury(): Promise<void> {
    this.#abort(new Error(`${this.name} is dead`));
    while (!this.done) await null;
  }
}

/** What the scheduler is asked to do. */
export interface Plan {
  readonly random: Random;
  /** Steps in which the actors must be done. */
  readonly stepsMax: number;
  /** Who dies, and when; then `cleanUp` is started as one more actor. */
  readonly kill: {
    readonly actor: Actor;
    readonly due: () => boolean;
    readonly cleanUp: () => Actor | null;
  } | null;
  /** Who may sleep for ever. */
  readonly maySleep: (actor: Actor) => boolean;
}

/** Runs actors until all are done, or sleep. Returns the number of steps. */
export async function interleave(
  actors: Actor[],
  { random, stepsMax, kill, maySleep }: Plan,
): Promise<number> {
  // Long turns for one actor find other faults than short ones.
  const switchChance = random.pick([1, 0.5, 0.1, 0.02]);
  let current = random.pick(actors);
  for (let steps = 0; steps < stepsMax; steps++) {
    if (kill !== null && !kill.actor.killed && !kill.actor.done && kill.due()) {
      kill.actor.killed = true;
      const server = kill.cleanUp();
      if (server !== null) actors.push(server);
    }
    const able = actors.filter((actor) => !actor.done && !actor.killed && !actor.asleep);
    if (able.length === 0) {
      if (actors.some((actor) => !actor.killed && actor.timeOut())) continue;
      const left = actors.filter((actor) => actor.asleep && !actor.killed && !maySleep(actor));
      if (left.length === 0) return steps;
      throw new Error(`nobody wakes ${left.map(({ name }) => name).join(", ")}`);
    }
    if (!able.includes(current) || random.next() < switchChance) current = random.pick(able);
    await current.advance();
    if (current.failure !== null) throw current.failure;
  }
  const left = actors.filter((actor) => !actor.done && !actor.killed).map(({ name }) => name);
  throw new Error(`no end after ${stepsMax} steps: ${left.join(", ")}`);
}
