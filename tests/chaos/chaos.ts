/**
 * Kills and stops at random: server, shadows and clients, real processes under load, round after round from a seed.
 *
 * After each round server and shadows must know the same, and after the end of a server what was known before; reliable
 * traffic must have gone on without a loss, nothing may be torn or out of order, and no fd may be left over. At the end
 * every fd and every file in /dev/shm must be accounted for.
 */

import assert from "node:assert/strict";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { Connection } from "../../wire/connection.ts";
import { closeDump, receiveDump, type StateDump } from "../../wire/state_dump.ts";
import { flag, integer } from "../../cli/flags.ts";
import { main, type Program as CommandLineProgram } from "../../cli/program.ts";
import { buffersOf, channelInfo, startClient, startServer, startShadow, until } from "../deployment.ts";
import { cppFolder, Program, uniqueSocket } from "../program.ts";
import { chosenSeed, Random, seedFlag } from "./random.ts";

/** What `runChaos` did. */
export interface ChaosResult {
  readonly rounds: number;
  /** How often each thing was done. */
  readonly deeds: Readonly<Record<string, number>>;
  /** Messages that the subscriber of the steady reliable channel received. */
  readonly messages: number;
  /** The same between C++ clients; 0 where there are none. */
  readonly cppMessages: number;
}

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
  readonly disordered?: number;
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

/**
 * Runs rounds, each of which does something at random to a running system and waits until all is as it should be.
 *
 * @param seed Of the first round; each has its own, one higher than the last, so that one can be run again alone.
 * @param say Told in a line what happens.
 */
export async function runChaos(
  rounds: number,
  seed: number,
  say: (line: string) => void,
): Promise<ChaosResult> {
  await using chaos = await Chaos.start();
  for (let round = 0; round < rounds; round++) {
    try {
      say(
        `round ${round + 1} of ${rounds}, seed ${seed + round}: ${await chaos.round(
          new Random(seed + round),
        )}`,
      );
    } catch (error) {
      throw new Error(
        `round ${round + 1} failed; again: deno task chaos --rounds 1 --seed ${
          seed + round
        }\n${error}\n${chaos.lastWords()}`,
        { cause: error },
      );
    }
  }
  return await chaos.finish(rounds);
}

/** What is done in a round, and how often beside the others. */
const deeds = {
  "kill the server": 4,
  "kill the server, and the next one while it begins": 2,
  "kill the server and a shadow": 2,
  "kill a shadow": 2,
  "stop a shadow while a client goes and another comes": 1,
  "stop the server": 1,
  "stop a client that nobody kills": 1,
  "kill a client": 2,
  "kill the server, and a client while there is none": 2,
  "kill the server, and a stopped client later": 1,
} satisfies Record<string, number>;

type Deed = keyof typeof deeds;

const lottery = Object.entries(deeds).flatMap(([deed, tickets]) => Array<Deed>(tickets).fill(deed as Deed));

const CPP_CHANNEL = "chaos/cpp";
const CPP_FREQUENCY_HZ = 200;
/** Stopped, or left alone, for up to so long. */
const PAUSE_MS_MAX = 30;

class Chaos implements AsyncDisposable {
  #random = new Random(0);
  readonly #socket = uniqueSocket("server");
  readonly #shadowSockets = [uniqueSocket("primary"), uniqueSocket("secondary")];
  #shadows: Program[] = [];
  #server!: Program;
  #publishers: Program[] = [];
  #subscribers: Program[] = [];
  /** A C++ publisher and subscriber; none where there are no binaries. */
  #cpp: Program[] = [];
  #cppOrdinal = 0;
  /** So many were started: each publisher counts its messages for itself. */
  #clients = 0;
  #cppMessages = 0;
  #session = "";
  /** Open fds of server and shadows without clients, and the most that there may be with them. */
  #idleFds: number[] = [];
  #busyFds: number[] = [];
  readonly #deeds: Record<string, number> = {};

  static async start(): Promise<Chaos> {
    const chaos = new Chaos();
    try {
      await chaos.#begin();
      return chaos;
    } catch (error) {
      await chaos[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    this.#shadows = await Promise.all(this.#shadowSockets.map((socket) => startShadow("ours", socket)));
    await this.#startServer();
    this.#session = String((await this.#dump(0)).session);
    // A server that recovered has each eventfd twice, as it was told: that is the most.
    await this.#killServer();
    this.#idleFds = this.#countFds();
    for (const stream of [steady, ...disposable]) {
      this.#subscribers.push(await this.#startClient("subscribe", stream));
      this.#publishers.push(await this.#startClient("publish", stream));
    }
    if (cppFolder !== undefined) await this.#startCpp();
    await this.#untilFlowing();
    await this.#killServer();
    await this.#untilFlowing();
    this.#busyFds = this.#countFds();
  }

  async #startCpp(): Promise<void> {
    const where = [`--socket=${this.#socket}`, `--channel=${CPP_CHANNEL}`, "--reliable"];
    const subscriber = startClient("cpp", "sub", where);
    this.#cpp.push(subscriber);
    await until(
      "the C++ subscriber is there",
      async () => (await channelInfo(this.#socket, CPP_CHANNEL))?.numSubs === 1,
    );
    const traffic = [`--num_msgs=1000000000`, `--frequency=${CPP_FREQUENCY_HZ}`, "--num_slots=64"];
    this.#cpp.push(startClient("cpp", "pub", [...where, ...traffic]));
  }

  async #startServer(): Promise<void> {
    this.#server = await startServer("ours", this.#socket, this.#shadowSockets);
  }

  async #startClient(role: "publish" | "subscribe", { channel, kind, intervalMs }: Stream): Promise<Program> {
    const args = [role, this.#socket, channel, kind, String(intervalMs), String(this.#clients++)];
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

  /** Does something, and waits until all is as it should be. Returns what. */
  async round(random: Random): Promise<string> {
    this.#random = random;
    const deed = random.pick(lottery);
    this.#deeds[deed] = (this.#deeds[deed] ?? 0) + 1;
    await this.#pause();
    await this.#do(deed);
    await this.#untilFlowing();
    await this.#untilEqual();
    await until("no fd is left over", () => this.#countFds().every((count, i) => count <= this.#busyFds[i]));
    for (const { lines } of this.#programs) if (lines.length > 1000) lines.splice(0, lines.length - 100);
    return deed;
  }

  async #do(deed: Deed): Promise<void> {
    const shadow = this.#random.below(2);
    switch (deed) {
      case "kill the server":
        return await this.#killServer();
      case "kill the server, and the next one while it begins":
        return await this.#killServer(async () => {
          const args = ["--local", `--socket=${this.#socket}`];
          for (const socket of this.#shadowSockets) args.push(`--shadow_socket=${socket}`);
          await using successor = Program.deno("cli/server.ts", args);
          await new Promise((resolve) => setTimeout(resolve, this.#random.below(4 * PAUSE_MS_MAX)));
          await successor.kill();
        });
      case "kill the server and a shadow":
        return await this.#killServer(() => this.#restartShadow(shadow));
      case "kill a shadow":
        return await this.#restartShadow(shadow);
      case "stop a shadow while a client goes and another comes":
        return await this.#whileStopped(this.#shadows[shadow], () => this.#replaceClient());
      case "stop the server":
        return await this.#whileStopped(this.#server, () => this.#untilReceived());
      case "stop a client that nobody kills":
        return await this.#whileStopped(
          this.#random.pick([this.#publishers[0], this.#subscribers[0]]),
          () => this.#pause(),
        );
      case "kill a client":
        return await this.#replaceClient();
      case "kill the server, and a client while there is none":
        return await this.#replaceClient(async (client) => {
          await this.#server.kill();
          await client.kill();
          await this.#startServer();
        });
      case "kill the server, and a stopped client later":
        return await this.#replaceClient(async (client) => {
          client.signal("SIGSTOP");
          await this.#killServer();
          await client.kill();
        });
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, this.#random.below(PAUSE_MS_MAX)));
  }

  async #whileStopped(program: Program, run: () => Promise<void>): Promise<void> {
    program.signal("SIGSTOP");
    await run();
    program.signal("SIGCONT");
  }

  /** Kills the server and starts it again; the shadows must have what they had. */
  async #killServer(meanwhile: () => Promise<void> = () => this.#pause()): Promise<void> {
    const before = await this.#dump(0);
    await this.#server.kill();
    await meanwhile();
    await this.#startServer();
    await this.#server.line(
      new RegExp(`Recovered \\d+ channels from \\w+ shadow \\(session_id=${this.#session}\\)`),
    );
    for (const shadow of [0, 1]) await this.#untilHolds(shadow, before.text);
  }

  async #restartShadow(which: number): Promise<void> {
    await this.#shadows[which].kill();
    this.#shadows[which] = await startShadow("ours", this.#shadowSockets[which]);
  }

  async #untilHolds(shadow: number, text: string): Promise<void> {
    await until(`shadow ${shadow} holds what was`, async () => (await this.#dump(shadow)).text === text)
      .catch(async (error) => {
        throw new Error(`${error}\nbefore: ${text}\nafter: ${(await this.#dump(shadow)).text}`);
      });
  }

  /** Ends a client that may be, waits until the server has noticed, and starts another one. */
  async #replaceClient(
    end: (client: Program) => Promise<unknown> = (client) => client.kill(),
  ): Promise<void> {
    const which = 1 + this.#random.below(disposable.length), stream = disposable[which - 1];
    const role = this.#random.pick(["publish", "subscribe"] as const);
    const list = role === "publish" ? this.#publishers : this.#subscribers;
    await end(list[which]);
    await until("the server has cleaned up behind a client", async () => {
      const info = await channelInfo(this.#socket, stream.channel);
      return info !== undefined && (role === "publish" ? info.numPubs : info.numSubs) === 0;
    });
    list[which] = await this.#startClient(role, stream);
  }

  /** Waits until every subscriber has received more than it had. */
  async #untilReceived(): Promise<void> {
    const before = this.#subscribers.map((subscriber) => reportOf(subscriber).received ?? 0);
    for (const [i, subscriber] of this.#subscribers.entries()) {
      await subscriber.until("more messages", () => (reportOf(subscriber).received ?? 0) >= before[i] + 5);
      const { lost, torn, disordered } = reportOf(subscriber);
      assert.deepEqual([torn, disordered], [0, 0], `torn and disordered messages at subscriber ${i}`);
      if (i === 0) assert.equal(lost, 0, "lost messages on the steady channel");
    }
    if (this.#cpp.length > 0) await this.#untilCppReceived();
  }

  async #untilCppReceived(): Promise<void> {
    const [subscriber] = this.#cpp, before = this.#cppMessages;
    await subscriber.until("more messages", (lines) => {
      for (const line of lines.splice(0)) {
        const ordinal = Number(line.match(/^Message (\d+): hello$/)?.[1]);
        if (Number.isNaN(ordinal)) continue;
        if (this.#cppMessages++ > 0) assert.equal(ordinal, this.#cppOrdinal + 1, "of C++ clients");
        this.#cppOrdinal = ordinal;
      }
      return this.#cppMessages >= before + 2;
    });
  }

  /** The same, and everybody is connected. */
  async #untilFlowing(): Promise<void> {
    await this.#untilReceived();
    for (const client of [...this.#publishers, ...this.#subscribers]) {
      await client.until("its connection", () => reportOf(client).connected);
    }
  }

  /** Waits until both shadows know the same, and of each channel as many users as the server. */
  async #untilEqual(): Promise<void> {
    const expected = [steady, ...disposable].map(({ channel }) => channel);
    await until("server and shadows know the same", async () => {
      const [one, two] = [await this.#dump(0), await this.#dump(1)];
      if (one.text !== two.text || String(one.session) !== this.#session) return false;
      const infos = await Promise.all(expected.map((channel) => channelInfo(this.#socket, channel)));
      const state = JSON.parse(one.text).state as { info: { channelName: string }; users: unknown[] }[];
      return infos.every((info) => {
        const users = state.find((each) => each.info.channelName === info?.name)?.users.length;
        return info?.numPubs === 1 && info.numSubs === 1 && users === 2;
      });
    });
  }

  get #programs(): Program[] {
    return [...this.#publishers, ...this.#subscribers, ...this.#cpp, this.#server, ...this.#shadows];
  }

  /** What server and shadows said last. */
  lastWords(): string {
    const words = ({ name, pid, lines }: Program) => [`--- ${name} ${pid}`, ...lines.slice(-15)].join("\n");
    return [this.#server, ...this.#shadows].map(words).join("\n");
  }

  /** Open fds of the server and the shadows. */
  #countFds(): number[] {
    return [this.#server, ...this.#shadows].map(({ pid }) => [...Deno.readDirSync(`/proc/${pid}/fd`)].length);
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
    for (const program of [...this.#publishers, ...this.#subscribers, ...this.#cpp]) await program.kill();

    for (const channel of [steady.channel, CPP_CHANNEL]) {
      await until(
        "the channels are gone",
        async () => await channelInfo(this.#socket, channel) === undefined,
      );
    }
    await until("the fds are what they were", () => {
      return this.#countFds().every((count, i) => count <= this.#idleFds[i]);
    }).catch((error) => {
      throw new Error(`${error}: ${this.#idleFds} then, ${this.#countFds()} now`);
    });
    assert.deepEqual(buffersOf(this.#session).filter((name) => name.includes("chaos")), []);

    // With the shadows gone nobody could recover the state: the server removes it all.
    for (const shadow of this.#shadows) assert.equal((await shadow.kill("SIGTERM")).code, 0);
    assert.equal((await this.#server.kill("SIGTERM")).code, 0);
    assert.deepEqual(buffersOf(this.#session), []);
    return { rounds, deeds: this.#deeds, messages: sent[0], cppMessages: this.#cppMessages };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#programs.map((program) => program?.kill()));
    if (this.#session === "") return;
    for (const name of buffersOf(this.#session)) Deno.removeSync(`/dev/shm/${name}`);
  }
}

const flags = {
  rounds: flag({ type: integer(1, 1_000_000), default: 100, description: "How many rounds" }),
  seed: seedFlag,
};

const program: CommandLineProgram<typeof flags> = {
  name: "chaos",
  summary: "kills and stops servers, shadows and clients at random, and checks what comes back",
  flags,
  examples: [{
    command: "deno task chaos --rounds 10000 --seed 1",
    what: "the long run of docs/reliability.md",
  }],
  exitCodes: { 0: "everything held", 1: "something did not: the seed that replays it is shown" },
  usageCode: 1,
  async run({ rounds, seed }) {
    const first = chosenSeed(seed), started = performance.now();
    const result = await runChaos(rounds, first, console.log);
    const seconds = (performance.now() - started) / 1000;
    console.log(JSON.stringify({ seed: first, seconds: Math.round(seconds), ...result }));
    return 0;
  },
};

if (import.meta.main) await main(program, Deno.args);
