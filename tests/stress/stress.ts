/**
 * Stress with real processes: many publishers and subscribers, growing messages, users that come, go and are killed at
 * random, from a seed, for so many seconds: `deno task stress --seconds N --seed S`.
 *
 * Those who stay must receive every message of every reliable publisher, whole and in order. Where `SUBSPACE_CPP_BIN`
 * names a folder with `peer_pub` and `peer_sub`, there are groups with C++ clients as well.
 */

import assert from "node:assert/strict";
import { flag, integer } from "../../cli/flags.ts";
import { main, type Program as CommandLineProgram } from "../../cli/program.ts";
import { chosenSeed, Random, seedFlag } from "../chaos/random.ts";
import { channelInfo, startServer, until } from "../deployment.ts";
import { cppFolder, Program, uniqueSocket } from "../program.ts";

/** What one of ours said last. */
interface Report {
  readonly received?: number;
  readonly lost?: number;
  readonly torn?: number;
  readonly disordered?: number;
  readonly sent?: number;
}

/** Publishers and subscribers of one channel: those who stay, and how those are made who come and go. */
interface Group {
  readonly channel: string;
  readonly publishers: Program[];
  readonly subscribers: Program[];
  readonly visitors: (() => Program)[];
}

const VISITORS_MAX = 3;
const ACTION_MS = 150;
const INTERVAL_MS = "2";

/** Whether there are C++ peers that check what they read. */
export function hasPeers(): boolean {
  try {
    return cppFolder !== undefined && Deno.statSync(`${cppFolder}/peer_sub`).isFile;
  } catch {
    return false;
  }
}

class Stress implements AsyncDisposable {
  readonly #socket = uniqueSocket("stress");
  readonly #random: Random;
  readonly #all = new Set<Program>();
  readonly #groups: Group[] = [];
  readonly #visitors: Program[] = [];
  #tag = 10;
  kills = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  #keep(program: Program): Program {
    this.#all.add(program);
    return program;
  }

  #ours(role: "publish" | "subscribe", channel: string, kind: string, tag = 0): Program {
    const args = [role, this.#socket, channel, kind, INTERVAL_MS, String(tag)];
    return this.#keep(Program.deno("tests/peers/stream.ts", args));
  }

  #theirs(name: "peer_pub" | "peer_sub", channel: string, args: string[]): Program {
    const where = [`--socket=${this.#socket}`, `--channel=${channel}`];
    return this.#keep(Program.start(`${cppFolder}/${name}`, [...where, ...args]));
  }

  async start(): Promise<void> {
    this.#keep(await startServer("ours", this.#socket));
    await this.#startOurs();
    if (!hasPeers()) return;
    await this.#startOursToTheirs();
    await this.#startTheirsToOurs();
  }

  async #startOurs(): Promise<void> {
    const channel = "stress/ours";
    const subscribers = [1, 2, 3].map(() => this.#ours("subscribe", channel, "reliable"));
    await this.#present(channel, 3);
    this.#groups.push({
      channel,
      subscribers,
      publishers: [1, 2, 3].map((tag) => this.#ours("publish", channel, "reliable", tag)),
      visitors: [
        () => this.#ours("subscribe", channel, "reliable"),
        () => this.#ours("subscribe", channel, "unreliable"),
        () => this.#ours("publish", channel, "reliable", this.#tag++),
      ],
    });
  }

  async #startOursToTheirs(): Promise<void> {
    const channel = "stress/ours_to_theirs";
    const reader = ["--count=1000000000", "--reliable=1", "--timeout_ms=3000"];
    const subscribers = [
      this.#ours("subscribe", channel, "reliable"),
      this.#theirs("peer_sub", channel, reader),
    ];
    await this.#present(channel, 2);
    this.#groups.push({
      channel,
      subscribers,
      publishers: [this.#ours("publish", channel, "reliable")],
      visitors: [
        () => this.#theirs("peer_sub", channel, reader),
        () => this.#theirs("peer_sub", channel, ["--count=1000000000", "--reliable=0", "--timeout_ms=3000"]),
      ],
    });
  }

  /** One reliable subscriber only: with more a C++ publisher loses messages (specification, section 9.2, 33). */
  async #startTheirsToOurs(): Promise<void> {
    const channel = "stress/theirs_to_ours";
    const subscribers = [this.#ours("subscribe", channel, "reliable")];
    await this.#present(channel, 1);
    const writer = [
      "--count=1000000000",
      "--reliable=1",
      "--rate_us=2000",
      "--slots=64",
      "--sizes=64,500,3000",
    ];
    this.#groups.push({
      channel,
      subscribers,
      publishers: [this.#theirs("peer_pub", channel, writer)],
      visitors: [() => this.#ours("subscribe", channel, "unreliable")],
    });
  }

  #present(channel: string, subscribers: number): Promise<void> {
    return until(
      `${subscribers} subscribers on ${channel}`,
      async () => (await channelInfo(this.#socket, channel))?.numSubs === subscribers,
    );
  }

  /** Somebody comes, or somebody is killed. */
  async act(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, this.#random.below(ACTION_MS)));
    if (this.#visitors.length < VISITORS_MAX && this.#random.below(2) === 0) {
      this.#visitors.push(this.#random.pick(this.#random.pick(this.#groups).visitors)());
    } else if (this.#visitors.length > 0) {
      const [victim] = this.#visitors.splice(this.#random.below(this.#visitors.length), 1);
      this.#all.delete(victim);
      await victim.kill();
      this.kills++;
    }
    for (const { subscribers } of this.#groups) for (const subscriber of subscribers) this.#check(subscriber);
  }

  #report({ lines }: Program): Report {
    const line = lines.findLast((line) => line.startsWith("{"));
    return line === undefined ? {} : JSON.parse(line);
  }

  #check(subscriber: Program): void {
    const { lost = 0, torn = 0, disordered = 0 } = this.#report(subscriber);
    assert.deepEqual({ lost, torn, disordered }, { lost: 0, torn: 0, disordered: 0 });
  }

  /** Lets the visitors go and the publishers end, and counts. Returns the messages that were received. */
  async finish(): Promise<number> {
    for (const visitor of this.#visitors.splice(0)) await visitor.kill();
    let messages = 0;
    for (const { channel, publishers, subscribers } of this.#groups) {
      const sent = (await Promise.all(publishers.map((publisher) => this.#end(publisher)))).reduce((a, b) =>
        a + b
      );
      for (const subscriber of subscribers) messages += await this.#received(channel, subscriber, sent);
    }
    return messages;
  }

  async #end(publisher: Program): Promise<number> {
    if (publisher.name !== "peer_pub") {
      await publisher.closeStdin();
      await publisher.line(/"done":true/);
      return this.#report(publisher).sent!;
    }
    await publisher.write("q\n");
    return Number((await publisher.line(/^published (\d+)/))[1]);
  }

  /** Waits until a subscriber that was there from the start has at least what those who stayed have sent. */
  async #received(channel: string, subscriber: Program, sent: number): Promise<number> {
    if (subscriber.name === "peer_sub") {
      const [, received, lost, torn] = await subscriber.line(/^received (\d+) lost (\d+) torn (\d+)/);
      assert.deepEqual(
        [Number(received), Number(lost), Number(torn)],
        [sent, 0, 0],
        `${channel}: a C++ subscriber`,
      );
      return sent;
    }
    await subscriber.until(`${sent} messages`, () => (this.#report(subscriber).received ?? 0) >= sent);
    this.#check(subscriber);
    return this.#report(subscriber).received!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const programs = [...this.#all];
    for (const program of programs.slice(1)) await program.kill();
    // The server goes last, and takes all memory with it.
    await programs[0]?.kill("SIGTERM");
  }
}

/** Runs it. */
export async function runStress(seconds: number, seed: number): Promise<{ messages: number; kills: number }> {
  await using stress = new Stress(seed);
  await stress.start();
  for (const end = performance.now() + 1000 * seconds; performance.now() < end;) await stress.act();
  return { messages: await stress.finish(), kills: stress.kills };
}

const flags = {
  seconds: flag({ type: integer(1, 1_000_000), default: 60, description: "How long" }),
  seed: seedFlag,
};

const program: CommandLineProgram<typeof flags> = {
  name: "stress",
  summary: "publishers and subscribers that come, go and are killed under growing messages",
  flags,
  examples: [{ command: "deno task stress --seconds 600 --seed 1", what: "ten minutes" }],
  exitCodes: { 0: "everything held", 1: "something did not" },
  usageCode: 1,
  async run({ seconds, seed }) {
    const chosen = chosenSeed(seed);
    console.log(`seed ${chosen}${hasPeers() ? ", with C++ peers" : ""}`);
    console.log(JSON.stringify(await runStress(seconds, chosen)));
    return 0;
  },
};

if (import.meta.main) await main(program, Deno.args);
