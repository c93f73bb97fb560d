/**
 * Stops and kills at random while one server takes over from another: real processes under load, round after round from
 * a seed.
 *
 * After each round exactly one server serves. Where it was not the server itself that was killed, no client has noticed
 * anything: each request is answered once, in order, and no fd is left over.
 */

import assert from "node:assert/strict";
import { flag, integer } from "../../cli/flags.ts";
import { main, type Program as CommandLineProgram } from "../../cli/program.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { buffersOf, sessionsOf, startServer, until, untilServed } from "../deployment.ts";
import { Program, uniqueSocket } from "../program.ts";
import { RawClient } from "../server/raw_client.ts";
import { Traffic } from "../server/traffic.ts";
import { chosenSeed, Random, seedFlag } from "./random.ts";

/** Makes a hand-over long enough to be hit in the middle. */
const CHANNELS = 200;
const CLIENTS = 20;
const TAKEOVER_MS = 300;
/** Those of the server itself. */
const OWN_CHANNELS = 2;

const faults = ["stop old", "stop new", "stop both", "kill old", "kill new"] as const;
type Fault = typeof faults[number];

/** From when on the moment of a fault is counted: what one of the two says then; null: at once. */
const moments = {
  "start": null,
  "hand-over": /Handing over to process/,
  "commit": /Took over|going on/,
};
type Moment = keyof typeof moments;

/** How a round ended. */
interface Outcome {
  readonly survivor: string;
  /** Whether no connection has ended. */
  readonly intact: boolean;
}

/** What `runTakeovers` saw. */
export interface TakeoversResult {
  /** Rounds by who served in the end. */
  readonly survivors: Record<string, number>;
  readonly answered: number;
}

/** Runs rounds of interrupted takeovers. @param say Told in a line what happens. */
export async function runTakeovers(
  rounds: number,
  seed: number,
  say: (line: string) => void,
): Promise<TakeoversResult> {
  const random = new Random(seed), survivors: Record<string, number> = {};
  let answered = 0;
  let deployment: Deployment | null = null;
  try {
    for (let round = 0; round < rounds; round++) {
      deployment ??= await Deployment.start();
      // Each fault comes about equally often, also in few rounds.
      const fault = faults[(round + seed) % faults.length],
        moment = random.pick(Object.keys(moments) as Moment[]);
      say(`round ${round + 1}: ${fault}, after ${moment}`);
      const { survivor, intact } = await deployment.round(random, fault, moment);
      say(`  ${survivor} serves${intact ? "" : ", its clients have to come back"}`);
      survivors[survivor] = (survivors[survivor] ?? 0) + 1;
      answered += deployment.answered;
      if (intact) continue;
      await deployment[Symbol.asyncDispose]();
      deployment = null;
    }
    return { survivors, answered };
  } finally {
    await deployment?.[Symbol.asyncDispose]();
  }
}

/** A server, its shadow, and one client that has many channels. */
class Deployment implements AsyncDisposable {
  readonly #socket = uniqueSocket("server");
  readonly #shadowSocket = uniqueSocket("shadow");
  readonly #shadow = Shadow.start({ socket: this.#shadowSocket });
  readonly #programs: Program[] = [];
  #server!: Program;
  #client: RawClient | null = null;
  /** Fds that a server has which another one has handed over to. */
  #fds = 0;
  answered = 0;

  static async start(): Promise<Deployment> {
    const deployment = new Deployment();
    try {
      await deployment.#start();
      return deployment;
    } catch (error) {
      await deployment[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #start(): Promise<void> {
    await this.#startServer();
    const client = this.#client = await RawClient.connect(this.#socket, "many");
    for (let i = 0; i < CHANNELS; i++) await client.createPublisher(`/many/${i}`);
    const before = this.#server;
    this.#server = this.#next();
    await this.#server.line(/Took over \d+ channels/);
    assert.equal((await ending(before)).code, 0);
    this.#fds = fdsOf(this.#server);
  }

  async #startServer(): Promise<void> {
    this.#server = await startServer("ours", this.#socket, [this.#shadowSocket]);
    this.#programs.push(this.#server);
  }

  #next(timeoutMs = 60_000): Program {
    const where = [`--socket=${this.#socket}`, `--shadow_socket=${this.#shadowSocket}`];
    const how = ["--local", "--takeover", `--takeover_timeout=${timeoutMs}ms`];
    const program = Program.deno("cli/server.ts", [...where, ...how]);
    this.#programs.push(program);
    return program;
  }

  /** Lets the next server take over, and something happen meanwhile. */
  async round(random: Random, fault: Fault, moment: Moment): Promise<Outcome> {
    const old = this.#server, before = old.lines.length;
    const traffic = await Traffic.start(this.#socket, CLIENTS);
    const next = this.#next(TAKEOVER_MS);
    const said = (pattern: RegExp) =>
      [...old.lines.slice(before), ...next.lines].some((it) => pattern.test(it));
    try {
      const sign = moments[moment];
      if (sign !== null) {
        await until(`it comes to the ${moment}`, () => said(sign) || old.ended || next.ended);
      }
      await rest(random.below(moment === "start" ? 600 : 40));
      await inflict(random, fault, old, next);
      // Whatever happened, one of the two has to go, and the other one to serve.
      await until("old or new ends", () => old.ended || next.ended);
      return await this.#settle(traffic, fault, old, next);
    } catch (error) {
      throw new Error(`${fault} after ${moment}:\n${wordsOf(old, next)}`, { cause: error });
    }
  }

  async #settle(traffic: Traffic, fault: Fault, old: Program, next: Program): Promise<Outcome> {
    const survivor = await this.#survivor(old, next);
    const tookOver = next.lines.some((line) => /Took over/.test(line));
    if (survivor === null) {
      assert(fault.startsWith("kill"), "nobody serves, though nobody was killed");
      await traffic.abandon();
      await this.#startServer();
      await this.#server.line(/Recovered \d+ channels from primary shadow/);
      return { survivor: "another", intact: false };
    }
    this.#server = survivor;
    if (survivor === next && !tookOver) {
      assert.equal(fault, "kill old", "a second server was started");
      await next.line(/Recovered \d+ channels from primary shadow/);
      await traffic.abandon();
      return { survivor: "new, which recovered", intact: false };
    }
    await this.#check(traffic);
    return { survivor: survivor === old ? "old" : "new", intact: true };
  }

  /** The one that goes on; null where both ended. */
  async #survivor(old: Program, next: Program): Promise<Program | null> {
    const survivor = old.ended ? next : old;
    await untilServed(this.#socket, survivor).catch((error) => {
      if (!survivor.ended) throw error;
    });
    assert(old.ended || next.ended, "both serve");
    return survivor.ended ? null : survivor;
  }

  async #check(traffic: Traffic): Promise<void> {
    const before = traffic.answered;
    await until(
      "requests are answered",
      () => traffic.answered > before + 10 * CLIENTS || traffic.failures.length > 0,
    );
    await traffic.stop();
    this.answered = traffic.answered;
    assert.deepEqual(traffic.failures, []);
    const { channels } = await this.#client!.getChannelInfo();
    assert.equal(channels.length, CHANNELS + OWN_CHANNELS);
    await until(
      "the shadow has what the server has",
      () => this.#shadow.state.channels.size === CHANNELS + OWN_CHANNELS,
    );
    await until(`there are ${this.#fds} fds again`, () => fdsOf(this.#server) <= this.#fds);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.close();
    for (const program of this.#programs) await program.kill();
    this.#shadow.stop();
    for (const session of sessionsOf(this.#programs)) {
      for (const name of buffersOf(session)) Deno.removeSync(`/dev/shm/${name}`);
    }
  }
}

async function inflict(random: Random, fault: Fault, old: Program, next: Program): Promise<void> {
  const [what, who] = fault.split(" ");
  if (what === "kill") return (who === "old" ? old : next).signal("SIGKILL");
  const victims = who === "both" ? [old, next] : [who === "old" ? old : next];
  for (const victim of victims) {
    victim.signal("SIGSTOP");
    await rest(random.below(10));
  }
  if (random.below(2) === 0) victims.reverse();
  for (const victim of victims) {
    await rest(random.below(3 * TAKEOVER_MS));
    victim.signal("SIGCONT");
  }
}

function rest(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function ending(program: Program): Promise<Deno.CommandStatus> {
  await until(`${program.name} ends`, () => program.ended);
  return await program.status();
}

function fdsOf({ pid }: Program): number {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
}

function wordsOf(old: Program, next: Program): string {
  return `old:\n${old.lines.join("\n")}\nnew:\n${next.lines.join("\n")}`;
}

const flags = {
  rounds: flag({ type: integer(1, 1_000_000), default: 100, description: "How many takeovers" }),
  seed: seedFlag,
};

const program: CommandLineProgram<typeof flags> = {
  name: "takeovers",
  summary: "stops and kills servers at random while one takes over from another, and checks who serves",
  flags,
  examples: [{ command: "deno task takeovers --rounds 1000 --seed 1", what: "a long run" }],
  exitCodes: { 0: "everything held", 1: "something did not" },
  usageCode: 1,
  async run({ rounds, seed }) {
    const chosen = chosenSeed(seed);
    console.log(`seed ${chosen}`);
    console.log(JSON.stringify(await runTakeovers(rounds, chosen, console.log)));
    return 0;
  },
};

if (import.meta.main) await main(program, Deno.args);
