/**
 * Kills at random: server, shadows and clients, real processes under load, round after round from a seed.
 *
 * After each round the state that the shadows hold must be the state that was, reliable traffic must have gone on
 * without a loss, and nothing may be torn. At the end every fd and every file in /dev/shm must be accounted for.
 */

import assert from "node:assert/strict";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { Connection } from "../../wire/connection.ts";
import { closeDump, receiveDump, type StateDump } from "../../wire/state_dump.ts";
import { buffersOf, channelInfo, startServer, startShadow, until } from "../deployment.ts";
import { Program, uniqueSocket } from "../program.ts";
import { Random } from "./random.ts";

/** What `runChaos` did. */
export interface ChaosResult {
  readonly rounds: number;
  readonly kills: Record<Victim, number>;
  /** Messages that the subscriber of the steady reliable channel received. */
  readonly messages: number;
}

type Victim = "server" | "primary shadow" | "secondary shadow" | "publisher" | "subscriber";

/** A channel under load; the steady one's clients are never killed. */
interface Stream {
  readonly channel: string;
  readonly kind: "reliable" | "unreliable";
  readonly intervalMs: number;
}

const steady: Stream = { channel: "chaos/steady", kind: "reliable", intervalMs: 2 };
const disposable: readonly Stream[] = [
  { channel: "chaos/reliable", kind: "reliable", intervalMs: 3 },
  { channel: "chaos/unreliable", kind: "unreliable", intervalMs: 3 },
];

/** What a client said last. */
interface Report {
  readonly received?: number;
  readonly sent?: number;
  readonly lost?: number;
  readonly torn?: number;
  readonly connected?: boolean;
}

function reportOf({ lines }: Program): Report {
  return lines.length === 0 ? {} : JSON.parse(lines.at(-1)!);
}

/**
 * A dump as text that is equal for equal states. Each server has its own pid on its own channels; and slots grow without
 * anybody telling the server, which looks when it has to say.
 */
function describeState(dump: StateDump): string {
  const sorted = <K, V>(entries: Map<K, V>) =>
    [...entries].sort(([a], [b]) => String(a).localeCompare(String(b))).map(([, value]) => value);
  const state = sorted(dump.channels).map(({ info, ccb, bcb, publishers, subscribers }) => ({
    info: { ...info, slotSize: 0 },
    memory: [ccb.stat().inode, bcb.stat().inode],
    users: [...sorted(publishers), ...sorted(subscribers)].map((user) =>
      info.channelName.startsWith("/subspace/") ? { ...user.info, processId: 0n } : user.info
    ),
  }));
  const text = (_: string, value: unknown) =>
    typeof value === "bigint" ? String(value) : value instanceof Uint8Array ? [...value].join() : value;
  return JSON.stringify({ session: dump.sessionId, state }, text);
}

/** Runs rounds of kills. @param say Told in a line what happens. */
export async function runChaos(
  rounds: number,
  seed: number,
  say: (line: string) => void,
): Promise<ChaosResult> {
  await using chaos = await Chaos.start(seed, say);
  for (let round = 1; round <= rounds; round++) await chaos.round(round);
  return await chaos.finish(rounds);
}

class Chaos implements AsyncDisposable {
  readonly #random: Random;
  readonly #socket = uniqueSocket("server");
  readonly #shadowSockets = [uniqueSocket("primary"), uniqueSocket("secondary")];
  #shadows: Program[] = [];
  #server!: Program;
  #publishers: Program[] = [];
  #subscribers: Program[] = [];
  #session = "";
  #baseline: Map<string, number> = new Map();
  readonly #kills: Record<Victim, number> = {
    "server": 0,
    "primary shadow": 0,
    "secondary shadow": 0,
    "publisher": 0,
    "subscriber": 0,
  };

  private constructor(seed: number, readonly say: (line: string) => void) {
    this.#random = new Random(seed);
  }

  static async start(seed: number, say: (line: string) => void): Promise<Chaos> {
    const chaos = new Chaos(seed, say);
    try {
      for (const socket of chaos.#shadowSockets) chaos.#shadows.push(await startShadow("ours", socket));
      chaos.#server = await startServer("ours", chaos.#socket, chaos.#shadowSockets);
      chaos.#session = String((await chaos.#dump(0)).session);
      // A server that recovered has each eventfd twice, as it was told: the baseline is one that has.
      await chaos.#killServer();
      chaos.#baseline = chaos.#countFds();
      for (const stream of [steady, ...disposable]) {
        chaos.#subscribers.push(await chaos.#startClient("subscribe", stream));
        chaos.#publishers.push(await chaos.#startClient("publish", stream));
      }
      await chaos.#untilFlowing();
      return chaos;
    } catch (error) {
      await chaos[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #startClient(role: "publish" | "subscribe", { channel, kind, intervalMs }: Stream): Promise<Program> {
    const args = [role, this.#socket, channel, kind, String(intervalMs)];
    const program = Program.deno("tests/peers/stream.ts", args);
    await program.line(/"ready":true/);
    return program;
  }

  /** The state that a shadow holds. */
  async #dump(shadow: number): Promise<{ session: bigint; text: string }> {
    using connection = new Connection(connectAbstract(this.#shadowSockets[shadow]));
    const dump = await receiveDump(connection);
    try {
      return { session: dump.sessionId, text: describeState(dump) };
    } finally {
      closeDump(dump);
    }
  }

  /** Waits until every subscriber has received more than it had, and everybody is connected. */
  async #untilFlowing(): Promise<void> {
    const before = this.#subscribers.map((subscriber) => reportOf(subscriber).received ?? 0);
    for (const [i, subscriber] of this.#subscribers.entries()) {
      await subscriber.until("more messages", () => {
        const { received = 0, connected } = reportOf(subscriber);
        return connected && received >= before[i] + 5;
      });
      const { lost, torn } = reportOf(subscriber);
      assert.equal(torn, 0, `torn messages at subscriber ${i}`);
      if (i === 0) assert.equal(lost, 0, "lost messages on the steady channel");
    }
    for (const publisher of this.#publishers) {
      await publisher.until("its connection", () => reportOf(publisher).connected);
    }
  }

  async round(round: number): Promise<void> {
    const victim = this.#pickVictim();
    await new Promise((resolve) => setTimeout(resolve, this.#random.below(30)));
    this.say(`round ${round}: ${victim}`);
    this.#kills[victim]++;
    if (victim === "server") await this.#killServer();
    else if (victim.endsWith("shadow")) await this.#killShadow(victim === "primary shadow" ? 0 : 1);
    else await this.#killClient(victim === "publisher" ? "publish" : "subscribe");
    await this.#untilFlowing();
  }

  #pickVictim(): Victim {
    return this.#random.pick<Victim>([
      "server",
      "server",
      "server",
      "primary shadow",
      "secondary shadow",
      "publisher",
      "subscriber",
    ]);
  }

  async #killServer(): Promise<void> {
    const before = await this.#dump(0);
    await this.#server.kill();
    await new Promise((resolve) => setTimeout(resolve, this.#random.below(30)));
    this.#server = await startServer("ours", this.#socket, this.#shadowSockets);
    await this.#server.line(
      new RegExp(`Recovered \\d+ channels from \\w+ shadow \\(session_id=${this.#session}\\)`),
    );
    for (const shadow of [0, 1]) await this.#untilHolds(shadow, before.text);
  }

  /** A shadow that dies is fed again as soon as it is back. */
  async #killShadow(which: number): Promise<void> {
    const { text } = await this.#dump(1 - which);
    await this.#shadows[which].kill();
    this.#shadows[which] = await startShadow("ours", this.#shadowSockets[which]);
    await this.#untilHolds(which, text);
  }

  async #untilHolds(shadow: number, text: string): Promise<void> {
    await until(`shadow ${shadow} holds what was`, async () => (await this.#dump(shadow)).text === text)
      .catch(async (error) => {
        throw new Error(`${error}\nbefore: ${text}\nafter: ${(await this.#dump(shadow)).text}`);
      });
  }

  async #killClient(role: "publish" | "subscribe"): Promise<void> {
    const which = 1 + this.#random.below(disposable.length);
    const list = role === "publish" ? this.#publishers : this.#subscribers;
    const { channel } = disposable[which - 1];
    await list[which].kill();
    await until("the server has cleaned up behind a client", async () => {
      const info = await channelInfo(this.#socket, channel);
      return info !== undefined && (role === "publish" ? info.numPubs : info.numSubs) === 0;
    });
    list[which] = await this.#startClient(role, disposable[which - 1]);
  }

  /** Open fds of the server and the shadows. */
  #countFds(): Map<string, number> {
    const programs = [["server", this.#server], ["primary", this.#shadows[0]], [
      "secondary",
      this.#shadows[1],
    ]] as const;
    return new Map(
      programs.map(([name, { pid }]) => [name, [...Deno.readDirSync(`/proc/${pid}/fd`)].length]),
    );
  }

  /** Stops everything in order and checks that nothing is left. */
  async finish(rounds: number): Promise<ChaosResult> {
    const sent: number[] = [];
    for (const publisher of this.#publishers) {
      await publisher.closeStdin();
      await publisher.line(/"done":true/);
      sent.push(reportOf(publisher).sent!);
    }
    const subscriber = this.#subscribers[0];
    await subscriber.until("all messages", () => reportOf(subscriber).received === sent[0]);
    assert.equal(reportOf(subscriber).lost, 0);
    for (const program of [...this.#publishers, ...this.#subscribers]) await program.kill();

    await until(
      "the channels are gone",
      async () => await channelInfo(this.#socket, steady.channel) === undefined,
    );
    await until("the fds are what they were", () => {
      const now = this.#countFds();
      return [...this.#baseline].every(([name, count]) => now.get(name)! <= count);
    }).catch((error) => {
      throw new Error(
        `${error}: ${JSON.stringify([...this.#baseline])} now ${JSON.stringify([...this.#countFds()])}`,
      );
    });
    assert.deepEqual(buffersOf(this.#session).filter((name) => name.includes("chaos")), []);

    // With the shadows gone nobody could recover the state: the server removes it all.
    for (const shadow of this.#shadows) assert.equal((await shadow.kill("SIGTERM")).code, 0);
    assert.equal((await this.#server.kill("SIGTERM")).code, 0);
    assert.deepEqual(buffersOf(this.#session), []);
    return { rounds, kills: this.#kills, messages: sent[0] };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const all = [...this.#publishers, ...this.#subscribers, this.#server, ...this.#shadows];
    for (const program of all) await program?.kill();
    for (const name of buffersOf(this.#session)) Deno.removeSync(`/dev/shm/${name}`);
  }
}

if (import.meta.main) {
  const [rounds = "100", seed = String(Date.now() % 2 ** 31)] = Deno.args;
  console.log(`seed ${seed}`);
  const result = await runChaos(Number(rounds), Number(seed), console.log);
  console.log(JSON.stringify(result));
}
