/**
 * One run: from a seed, a deployment on a simulated machine, to which everything happens that may happen to it, until
 * it is left alone and has to come to rest.
 */

import type { Random } from "../chaos/random.ts";
import { deeds } from "./deeds.ts";
import { Machine, type MachineTraits } from "./machine.ts";
import { checkAlways, checkAtRest, checkNobodyWaits } from "./oracle.ts";
import { World, type WorldTraits } from "./world.ts";

/** Things that happen in a run before it is left alone. */
const STEPS = 140;
/** Longer than servers rest between two looks for lost shadows, or for dead clients. */
const REST_MS = 2500;
/** Longer than it takes to answer a request. */
const ANSWER_MS = 200;
const REST_STEPS_MAX = 20_000;
/** The longest that time leaps while somebody has something to do. */
const LEAP_MS_MAX = 20;

/** The longest that nothing at all happens. */
const IDLE_MS_MAX = 5000;

/** What came of a run. */
export interface Outcome {
  readonly seed: number;
  /** null: everything held. */
  readonly violation: Error | null;
  /** What happened, where that was asked for. */
  readonly lines: readonly string[];
  /** Things that processes were let do. */
  readonly steps: number;
  /** Publishers and subscribers that clients were told they have. */
  readonly acknowledged: number;
  /** Of them, those that clients had to start anew, as nobody could know of them any more. */
  readonly recreated: number;
  readonly kills: number;
}

/** Runs a simulation to its end, or to the first thing that does not hold. */
export async function simulate(seed: number, traced = false): Promise<Outcome> {
  const machine = new Machine(seed, machineTraits, traced);
  const run = new Run(machine, new World(machine, worldTraits(machine.random)));
  try {
    await run.toTheEnd();
    const { acknowledged, recreated, kills } = run.world;
    const { violation, lines, step } = machine;
    return { seed, violation, lines, steps: step, acknowledged, recreated, kills };
  } finally {
    machine.end();
  }
}

function machineTraits(random: Random): MachineTraits {
  return {
    socketBytes: random.pick([300, 2000, 20_000, 200_000]),
    shortTransfers: random.pick([0, 0, 5, 30]),
    watchesProcesses: random.below(2) === 0,
  };
}

function worldTraits(random: Random): WorldTraits {
  const shadows = 1 + random.below(3), clients = 1 + random.below(4);
  return {
    referenceShadows: Array.from({ length: shadows }, () => random.below(6) === 0),
    lateClients: Array.from({ length: clients }, () => random.below(4) === 0),
    oldServer: random.below(8) === 0,
    journalChangesMax: random.pick([1, 8, 1000]),
  };
}

/** A run under way. Scenarios drive one step by step. */
export class Run {
  #activity = 0;

  constructor(readonly machine: Machine, readonly world: World) {}

  get random(): Random {
    return this.machine.random;
  }

  async toTheEnd(): Promise<void> {
    const { machine, world } = this;
    for (const shadow of world.shadows) await shadow.start();
    await world.startServer();
    for (const late of world.traits.lateClients) await world.startClient(late);
    for (let step = 0; step < STEPS && machine.violation === null; step++) {
      if (machine.chance(35)) await this.#deed();
      else await this.#progress(machine.nowMs + LEAP_MS_MAX);
      this.#checked();
    }
    if (machine.violation === null) await this.rest();
  }

  #checked(): void {
    checkNobodyWaits(this.world);
    // Where nobody has called the system, nothing has changed.
    if (this.machine.activity === this.#activity) return;
    this.#activity = this.machine.activity;
    this.world.refreshHolders();
    checkAlways(this.world);
  }

  /** Lets everybody do what they have to do, until something is so. */
  async until(what: string, isSo: () => boolean): Promise<void> {
    const { machine } = this;
    for (let step = 0; !isSo(); step++) {
      if (step > REST_STEPS_MAX || machine.violation !== null) throw new Error(`never: ${what}`);
      if (!await machine.dispatch()) machine.nowMs = machine.nextMs;
      this.#checked();
    }
  }

  /** Lets somebody do something, or time go by. */
  async #progress(untilMs: number): Promise<boolean> {
    const { machine } = this;
    if (!machine.chance(3) && await machine.dispatch()) return true;
    const next = machine.nextMs;
    if (next > untilMs) {
      if (await machine.dispatch()) return true;
      // Nobody has anything to do for a while: that while may as well be over.
      if (untilMs < Infinity && machine.chance(50)) {
        machine.nowMs = Math.min(next, machine.nowMs + IDLE_MS_MAX);
      }
      return next < Infinity;
    }
    machine.nowMs = Math.max(machine.nowMs, next);
    await machine.dispatch();
    return true;
  }

  /** Does something to somebody, of all that can be done. */
  async #deed(): Promise<void> {
    const possible = deeds(this.machine, this.world).filter(([weight]) => weight > 0);
    let at = this.random.below(possible.reduce((sum, [weight]) => sum + weight, 0));
    const [, deed] = possible.find(([weight]) => (at -= weight) < 0)!;
    await deed();
  }

  /** Everybody goes on, whoever is missing comes back, and all links come to rest. */
  async rest(): Promise<void> {
    const { machine, world } = this;
    for (const process of machine.processes) {
      process.fuse = -1;
      process.stopped = false;
    }
    for (const shadow of world.shadows) if (!shadow.alive) await shadow.start();
    if (world.incarnation?.stopping) world.incarnation.process.kill();
    if (!world.serverLives) await world.startServer();
    if (!await this.#settle(REST_MS)) return;
    // Some clients look after their connection only when they need it.
    for (const client of world.clients.filter(({ process, idle }) => process.alive && idle)) {
      await machine.run(client.process, "asks", () => client.ask(""));
    }
    if (await this.#settle(ANSWER_MS)) checkAtRest(world);
  }

  async #settle(ms: number): Promise<boolean> {
    const { machine } = this, endMs = machine.nowMs + ms;
    for (let step = 0; machine.violation === null; step++) {
      if (step > REST_STEPS_MAX) machine.violated("it does not come to rest");
      while (await machine.dispatch()) {
        this.#checked();
        if (machine.violation !== null) return false;
        if (++step > REST_STEPS_MAX) break;
      }
      if (machine.nextMs > endMs) return true;
      machine.nowMs = machine.nextMs;
    }
    return false;
  }
}
