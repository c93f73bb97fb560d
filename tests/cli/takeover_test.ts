/** `subspace-server --takeover` as real processes under load. */

import assert from "node:assert/strict";
import { connectAbstract, peerCredentials } from "../../ffi/unix_socket.ts";
import { Client } from "../../mod.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { channelInfo, type Maker, startClient, startServer, until } from "../deployment.ts";
import { cppFolder, mayRun, Program, uniqueSocket } from "../program.ts";
import { RawClient } from "../server/raw_client.ts";
import { Traffic } from "../server/traffic.ts";

const ignore = !mayRun;
const reason = ignore ? " (skipped: needs permission to run)" : "";
const test = (name: string, fn: () => Promise<void>) => Deno.test({ name: name + reason, ignore, fn });

const CLIENTS = 200;
const TAKEOVERS = 3;

/** Servers that come one after the other, with a shadow in this process. */
class Succession implements AsyncDisposable {
  readonly socket = uniqueSocket("server");
  readonly #shadowSocket = uniqueSocket("shadow");
  readonly shadow = Shadow.start({ socket: this.#shadowSocket });
  server!: Program;

  static async begin(): Promise<Succession> {
    const succession = new Succession();
    succession.server = await startServer("ours", succession.socket, [succession.#shadowSocket]);
    return succession;
  }

  /** Starts a server that is to take over. */
  next(...flags: string[]): Program {
    const where = [`--socket=${this.socket}`, `--shadow_socket=${this.#shadowSocket}`];
    return Program.deno("cli/server.ts", ["--local", ...where, "--takeover", "--forget_on_exit", ...flags]);
  }

  /** Lets the next server take over, and the one before end. */
  async takeOver(...flags: string[]): Promise<void> {
    const next = this.next(...flags), before = this.server;
    this.server = next;
    await next.line(/Took over \d+ channels and \d+ clients from process \d+/);
    const { code, signal } = await before.status();
    assert.deepEqual([code, signal], [0, null], before.lines.join("\n"));
    await before[Symbol.asyncDispose]();
  }

  /** How many fds the server has open. */
  get fds(): number {
    return [...Deno.readDirSync(`/proc/${this.server.pid}/fd`)].length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.kill("SIGTERM");
    this.shadow.stop();
  }
}

/** Reliable messages from one process to another, of either maker. */
class Stream implements AsyncDisposable {
  readonly #programs = new AsyncDisposableStack();
  #publisher!: Program;
  #subscriber!: Program;

  static async start(socket: string, maker: Maker): Promise<Stream> {
    const stream = new Stream(), where = [`--socket=${socket}`, `--channel=stream/${maker}`, "--reliable"];
    stream.#subscriber = stream.#programs.use(startClient(maker, "sub", where));
    await until(
      "there is a subscriber",
      async () => (await channelInfo(socket, `stream/${maker}`))?.numSubs === 1,
    );
    const messages = ["--num_msgs=1000000", "--frequency=500", "--num_slots=64"];
    stream.#publisher = stream.#programs.use(startClient(maker, "pub", [...where, ...messages]));
    await stream.goesOn();
    return stream;
  }

  get #ordinals(): number[] {
    return this.#subscriber.lines.flatMap((line) => line.match(/^Message (\d+): hello$/)?.[1] ?? []).map(
      Number,
    );
  }

  /** Waits for more messages. */
  async goesOn(): Promise<void> {
    const before = this.#ordinals.length;
    await this.#subscriber.until("more messages", () => this.#ordinals.length > before + 50);
  }

  /** Checks that no message was lost, and that neither end noticed anything. */
  check(): void {
    const ordinals = this.#ordinals;
    assert.deepEqual(ordinals, Array.from(ordinals, (_, i) => ordinals[0] + i));
    const said = [...this.#publisher.lines, ...this.#subscriber.lines].filter((line) =>
      !line.startsWith("Message")
    );
    assert(!said.some((line) => /error|reconnect|closed/i.test(line)), said.join("\n"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#programs.disposeAsync();
  }
}

test(`${CLIENTS} clients with requests on their way notice none of ${TAKEOVERS} takeovers in a row`, async () => {
  await using servers = await Succession.begin();
  await servers.takeOver();
  const fds = servers.fds;
  const { generation } = servers.shadow.position, { accepted } = servers.shadow.counters;
  const makers: Maker[] = cppFolder === undefined ? ["ours"] : ["ours", "cpp"];
  {
    await using streams = new AsyncDisposableStack();
    const running: Stream[] = [];
    for (const maker of makers) running.push(streams.use(await Stream.start(servers.socket, maker)));
    await using traffic = await Traffic.start(servers.socket, CLIENTS);
    for (let i = 0; i < TAKEOVERS; i++) {
      const before = traffic.answered;
      await servers.takeOver();
      await until("requests are answered", () => traffic.answered > before + 10 * CLIENTS);
      for (const stream of running) await stream.goesOn();
    }
    await traffic.stop();
    assert.deepEqual(traffic.failures, []);
    for (const stream of running) stream.check();
  }
  // Nothing of all that is left, in the server or in its shadow, which was never connected to again.
  const own = ["/subspace/ChannelDirectory", "/subspace/Statistics"];
  await until("all channels are gone", () => servers.shadow.state.channels.size === own.length);
  // When they were counted, the connection to the server before may not have been closed yet.
  await until("all fds are closed", () => servers.fds <= fds);
  assert.equal(servers.shadow.counters.accepted, accepted);
  assert.equal(servers.shadow.position.generation, generation);
  using connection = connectAbstract(servers.socket);
  assert.equal(peerCredentials(connection).pid, servers.server.pid, "whoever connects sees another process");
});

test("a server that is killed in the middle of taking over is one that never was", async () => {
  await using servers = await Succession.begin();
  await using client = await Client.connect({ socket: servers.socket });
  for (let i = 0; i < 300; i++) await client.createPublisher(`/many/${i}`, { slotBytes: 64, numSlots: 4 });
  await using traffic = await Traffic.start(servers.socket, 20);
  await using next = servers.next();
  const said = servers.server.lines.length;
  await servers.server.line(/Handing over to process/, said);
  await next.kill();
  const [line] = await servers.server.line(
    /Failed to hand over to process \d+, and going on|Handed over/,
    said,
  );
  if (line.startsWith("Failed")) {
    const before = traffic.answered;
    await until("requests are answered", () => traffic.answered > before + 100);
    assert.deepEqual(traffic.failures, []);
    await servers.takeOver();
  }
});

test("a server that may open too few files leaves the one before going on, however few they are", async () => {
  await using servers = await Succession.begin();
  using clients = new DisposableStack();
  const all: RawClient[] = [];
  for (let i = 0; i < 20; i++) all.push(clients.use(await RawClient.connect(servers.socket)));
  for (const [i, client] of all.entries()) await client.createPublisher(`/many/${i}`, { numSlots: 4 });
  const areServed = async () => {
    for (const client of all) assert.equal((await client.getChannelInfo("/many/0")).channels.length, 1);
  };
  // It needs about as many as the other one has, and some are reserved.
  for (const more of [-90, -60, -30, -10, 0, 10, 50]) {
    await using next = servers.next(`--max_fds=${servers.fds + more}`);
    await next.line(/Cannot take over the server at /);
    assert.equal((await next.status()).code, 1);
    await areServed();
  }
  await servers.takeOver(`--max_fds=${servers.fds + 200}`);
  await areServed();
});

test("a process that stops with the server in its hands is killed, and the server goes on", async () => {
  await using servers = await Succession.begin();
  await servers.takeOver("--takeover_timeout=300ms");
  await using traffic = await Traffic.start(servers.socket, 20);
  for (const stop of ["offered", "taken"]) {
    await using taker = Program.deno(
      "tests/peers/taker.ts",
      [`--socket=${servers.socket}`, `--stop=${stop}`],
      ["-A"],
    );
    await taker.line(new RegExp(stop));
    const before = traffic.answered;
    if (stop === "taken") assert.equal((await taker.status()).signal, "SIGKILL");
    else await taker.line(/the baton is gone/);
    await until("requests are answered", () => traffic.answered > before + 100);
  }
  assert.deepEqual(traffic.failures, []);
});

test("a server that does not let go of what it handed over is killed, if its process has nothing else to do", async () => {
  for (const standalone of [true, false]) {
    const socket = uniqueSocket("server");
    await using former = Program.deno(
      "tests/peers/former.ts",
      [`--socket=${socket}`, `--standalone=${standalone}`],
      ["-A"],
    );
    await former.line(/listens/);
    await using next = Program.deno("cli/server.ts", [
      "--local",
      `--socket=${socket}`,
      "--takeover",
      "--takeover_timeout=1s",
    ]);
    await next.line(/Process \d+ was taken over, and still holds the listening socket: it is stopped/);
    if (standalone) assert.equal((await former.status()).signal, "SIGKILL");
    using client = await RawClient.connect(socket);
    await client.createPublisher("/a");
    assert.equal(former.ended, standalone);
    await next.kill("SIGTERM");
  }
});

test("a new server that was slow is not killed by an old one that was stopped meanwhile", async () => {
  await using servers = await Succession.begin();
  await servers.takeOver("--takeover_timeout=100ms");
  await using taker = Program.deno(
    "tests/peers/taker.ts",
    [`--socket=${servers.socket}`, "--stop=served"],
    ["-A"],
  );
  await servers.server.line(/Process \d+ took over, and does not go on/);
  servers.server.signal("SIGSTOP");
  await taker.write("\n");
  // Behind that its predecessor finds the word that it serves, and its own time long up.
  const [word] = await taker.line(/served|too late/);
  await new Promise((resolve) => setTimeout(resolve, 200));
  servers.server.signal("SIGCONT");
  await (word === "served" ? servers.server : taker).status();
  if (word === "served") await taker.line(/the baton is gone/);
});
