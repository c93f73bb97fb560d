/** A server that goes and comes back: with its shadow's help nobody notices, without it everybody is told. */

import assert from "node:assert/strict";
import { Control } from "../../client/control.ts";
import { createEventFd } from "../../ffi/eventfd.ts";
import { operatingSystem } from "../../ffi/system.ts";
import { Client, ClosedError, type ConnectionChange, RequestError } from "../../mod.ts";
import { Server } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { unlinkBuffers } from "../../shm/buffer_names.ts";
import { ControlBlocks } from "../../shm/control_blocks.ts";
import { SystemControlBlock } from "../../shm/system_control_block.ts";
import { removeBuffers } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { eventually, readAll } from "./cases.ts";
import { FakeServer, greeting } from "./fake_server.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** All channels of these tests. */
const CHANNELS = ["/a", "/b", "/later", "/mux"];

/** A server in this process that can be stopped and started. */
class Restartable implements AsyncDisposable {
  readonly socket = uniqueSocket("server");
  readonly #shadow: Shadow | null;
  readonly #shadowSocket = uniqueSocket("shadow");
  readonly #clients: Client[] = [];
  readonly changes: ConnectionChange[] = [];
  readonly #sessions = new Set<bigint>();
  #server: Server | null = null;

  constructor(shadow: boolean) {
    this.#shadow = shadow ? Shadow.start({ socket: this.#shadowSocket }) : null;
  }

  async start(): Promise<void> {
    const shadow = this.#shadow === null ? {} : { shadowSocket: this.#shadowSocket };
    const options = { socket: this.socket, local: true, publishServerChannels: false };
    this.#server = await Server.start({ ...options, ...shadow });
    this.#sessions.add(this.#server.sessionId);
  }

  /** Stops the server, and waits until all clients have noticed. */
  async stop(): Promise<void> {
    await this.#server?.stop();
    this.#server = null;
    await eventually("the clients notice", () => this.#clients.every((client) => !client.connected));
  }

  /** Starts the server, and waits until all clients are back. */
  async restart(): Promise<void> {
    await this.start();
    await eventually("the clients are back", () => this.#clients.every((client) => client.connected));
  }

  async connect(): Promise<Client> {
    const onConnectionChange = (change: ConnectionChange) => this.changes.push(change);
    const client = await Client.connect({ socket: this.socket, onConnectionChange });
    this.#clients.push(client);
    return client;
  }

  /** How many parts of split buffers of a channel are registered. */
  partsOf(channel: string): number {
    return this.#server!.table.find(channel)!.physical.clientBuffers.size;
  }

  get numChannels(): number {
    return this.#server!.table.size;
  }

  /** What the last re-attachment came to. */
  get outcome(): { recreated: string[]; failed: string[] } {
    const change = this.changes.at(-1);
    assert(change?.state === "attached");
    return { recreated: [...change.recreated].sort(), failed: change.failed.map(({ channel }) => channel) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client.close();
    await this.#server?.stop();
    this.#shadow?.stop();
    for (const session of this.#sessions) for (const name of CHANNELS) unlinkBuffers(session, name, 8);
    removeBuffers([...this.#sessions].map(String));
  }
}

function test(name: string, shadow: boolean, run: (server: Restartable) => Promise<void>): void {
  Deno.test(name, () =>
    withBalancedFds(async () => {
      await using server = new Restartable(shadow);
      await server.start();
      await run(server);
    }));
}

test("with a shadow a restart leaves the fds that one polls as they are", true, async (server) => {
  const client = await server.connect();
  const publisher = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8, reliable: true });
  const subscriber = await client.createSubscriber("/a", { reliable: true });
  const before = [publisher.pollFd, subscriber.pollFd];
  const waiting = subscriber.wait();
  await server.stop();
  await server.restart();
  assert.deepEqual([publisher.pollFd, subscriber.pollFd], before);
  publisher.publish(bytes("after"));
  assert(await waiting);
  assert.deepEqual(readAll(subscriber), ["after"]);
});

test("with a shadow a restart is not noticed: ids, memory, messages and waits stay", true, async (server) => {
  const client = await server.connect();
  const subscriber = await client.createSubscriber("/a", { reliable: true, maxActiveMessages: 2 });
  const publisher = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8, reliable: true });
  const placeholder = await client.createSubscriber("/later");
  const before = await client.channelInfo("/a");
  publisher.publish(bytes("held"));
  publisher.publish(bytes("unread"));
  assert(await subscriber.wait());
  using held = subscriber.read()!;
  const buffer = publisher.getBuffer()!;
  const waiting = placeholder.wait();

  await server.stop();
  assert.equal(text(held.data), "held");
  assert.deepEqual(readAll(subscriber), ["unread"]);
  await server.restart();

  assert.deepEqual(server.outcome, { recreated: [], failed: [] });
  assert.equal(client.reattachments, 1);
  assert.deepEqual(await client.channelInfo("/a"), before);
  buffer.set(bytes("after"));
  assert(publisher.publish(5), "the buffer is good still");
  held.release();
  assert.deepEqual(readAll(subscriber), ["after"]);
  const other = await server.connect();
  const later = await other.createPublisher("/later", { slotBytes: 64, numSlots: 4 });
  later.publish(bytes("x"));
  assert(await waiting);
  assert.deepEqual(readAll(placeholder), ["x"]);
});

test("what was closed while the server was away is gone when it is back", true, async (server) => {
  const client = await server.connect();
  await using stays = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
  const closed = await client.createSubscriber("/a");
  await server.stop();
  await closed.close();
  await server.restart();
  const [info] = await client.channelInfo("/a");
  assert.deepEqual([info.numPublishers, info.numSubscribers, stays.numSubscribers], [1, 0, 0]);
});

test("what is asked while the server is away is answered when it is back", true, async (server) => {
  const client = await server.connect();
  const publisher = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
  await server.stop();
  publisher.publish(bytes("1"));
  const subscribing = client.createSubscriber("/a");
  const info = client.channelInfo("/a");
  await server.restart();
  assert.deepEqual(readAll(await subscribing), ["1"]);
  assert.equal((await info)[0].numPublishers, 1);
});

test("a client that is closed while the server is away closes at once", true, async (server) => {
  const client = await server.connect();
  await client.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
  const asked = client.createSubscriber("/a");
  await asked;
  await server.stop();
  const never = client.createSubscriber("/b");
  await Promise.all([client.close(), assert.rejects(never, ClosedError)]);
});

test("many restarts, with traffic: each message comes, in order, once", true, async (server) => {
  const [sender, receiver] = [await server.connect(), await server.connect()];
  const subscriber = await receiver.createSubscriber("/a", { reliable: true });
  const publisher = await sender.createPublisher("/a", { slotBytes: 64, numSlots: 8, reliable: true });
  let [sent, received, stopped] = [0, 0, false];
  const sending = (async () => {
    while (!stopped) await publisher.send(bytes(String(sent++)));
  })();
  const receiving = (async () => {
    for await (const message of subscriber) assert.equal(text(message.data), String(received++));
  })();
  for (let round = 1; round <= 10; round++) {
    const progress = received;
    await eventually("traffic", () => received > progress);
    await server.stop();
    await eventually("traffic without a server", () => received > progress + 100);
    await server.restart();
    assert(sender.reattachments === round && receiver.reattachments === round);
  }
  stopped = true;
  await sending;
  await eventually("everything has arrived", () => received === sent);
  await subscriber.close();
  await receiving;
});

test("a question that the server dies upon is asked again", true, async (server) => {
  const [client, other] = [await server.connect(), await server.connect()];
  const publisher = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
  await other.createSubscriber("/a");
  const stopping = server.stop();
  publisher.publish(bytes("who is there?"));
  await stopping;
  await server.restart();
  const subscriber = await other.createSubscriber("/a");
  readAll(subscriber);
  const waiting = subscriber.wait();
  publisher.publish(bytes("x"));
  assert(await waiting);
});

test("requests on their way when the client is closed leave nothing behind", true, async (server) => {
  const client = await server.connect();
  const creations = [
    client.createSubscriber("/a"),
    client.createPublisher("/a", { slotBytes: 64, numSlots: 8, reliable: true }),
  ];
  const refused = creations.map((creation) => assert.rejects(creation, ClosedError));
  await client.close();
  await Promise.all(refused);
  const other = await server.connect();
  await eventually("nothing is left at the server", () => server.numChannels === 0);
  await assert.rejects(other.channelInfo("/a"), RequestError);
});

test("virtual channels, their multiplexer and queues go on after a restart", true, async (server) => {
  const [client, other] = [await server.connect(), await server.connect()];
  const shape = { slotBytes: 64, numSlots: 16, mux: "/mux", subscriberQueueArenaBytes: 1280 };
  const publisher = await client.createPublisher("/v", { ...shape, vchanId: 4 });
  const own = await other.createSubscriber("/v", { mux: "/mux", queueSize: 8 });
  const all = await other.createSubscriber("/mux");
  for (let round = 0; round < 3; round++) {
    publisher.publish(bytes(`before ${round}`));
    await server.stop();
    publisher.publish(bytes(`without ${round}`));
    await server.restart();
    publisher.publish(bytes(`after ${round}`));
    assert.deepEqual(server.outcome, { recreated: [], failed: [] });
    for (const subscriber of [own, all]) {
      assert.deepEqual(readAll(subscriber), ["before", "without", "after"].map((when) => `${when} ${round}`));
    }
  }
  assert.deepEqual([publisher.vchanId, own.vchanId, all.vchanId], [4, 4, -1]);
});

test("without a shadow a virtual channel starts anew, by its number", false, async (server) => {
  const client = await server.connect();
  const shape = { slotBytes: 64, numSlots: 16, mux: "/mux" };
  const publisher = await client.createPublisher("/v", { ...shape, vchanId: 4 });
  const own = await client.createSubscriber("/v", { mux: "/mux", vchanId: 4 });
  await server.stop();
  await server.restart();
  assert.deepEqual(server.outcome, { recreated: ["/v"], failed: [] });
  publisher.publish(bytes("anew"));
  assert.deepEqual(readAll(own), ["anew"]);
  assert.equal(publisher.vchanId, 4);
});

test("without a shadow channels start anew, and the user is told which", false, async (server) => {
  const client = await server.connect();
  const publisher = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
  const subscriber = await client.createSubscriber("/a");
  const placeholder = await client.createSubscriber("/later");
  publisher.publish(bytes("held"));
  const held = subscriber.read()!;
  await server.stop();
  publisher.getBuffer();
  await server.restart();
  assert.deepEqual(server.outcome, { recreated: ["/a", "/later"], failed: [] });
  assert.equal(publisher.publish(4), false, "that buffer is gone");
  assert.equal(text(held.data), "held", "what is held stays");
  publisher.publish(bytes("anew"));
  assert.deepEqual(readAll(subscriber), ["anew"], "and does not count any more");
  held.release();
  assert.equal(held.data.length, 0);
  const later = await client.createPublisher("/later", { slotBytes: 64, numSlots: 4 });
  later.publish(bytes("x"));
  assert(await placeholder.wait());
  assert.deepEqual(readAll(placeholder), ["x"]);
});

/** A fake server whose first session has a subscriber, and whose others refuse it. */
function forgetfulServer(asked: number[]): FakeServer {
  let connections = 0;
  return new FakeServer((request) => {
    if (request.case === "init") return greeting(BigInt(++connections));
    if (request.case !== "createSubscriber") return null;
    asked.push(request.value.subscriberId);
    if (connections > 1) return { response: { case: "createSubscriber", value: { error: "it is full" } } };
    const value = { subscriberId: 7, bcbFdIndex: 1, triggerFdIndex: 2, pollFdIndex: 3 };
    using blocks = placeholderBlocks();
    const fds = [blocks.ccbFd.duplicate(), blocks.bcbFd.duplicate(), createEventFd(), createEventFd()];
    return { response: { case: "createSubscriber", value }, fds };
  });
}

function placeholderBlocks(): ControlBlocks {
  using scb = SystemControlBlock.create();
  return ControlBlocks.create({ channelName: "/a", numSlots: 0, queueArenaBytes: 0 }, scb.counters(0));
}

Deno.test("who cannot be created again is told so, at each use; a new session is asked for new ids", () =>
  withBalancedFds(async () => {
    const asked: number[] = [];
    using server = forgetfulServer(asked);
    const changes: ConnectionChange[] = [];
    using client = await Client.connect({
      socket: server.socket,
      onConnectionChange: (change) => changes.push(change),
    });
    const subscriber = await client.createSubscriber("/a");
    const waiting = assert.rejects(subscriber.wait(), /it is full/);
    server.connections[0].close();
    await eventually("the client is back", () => client.reattachments === 1);
    await waiting;
    assert.throws(() => subscriber.read(), /it is full/);
    assert.throws(() => subscriber.wait(), RequestError);
    await subscriber.close();
    assert.deepEqual(asked, [-1, -1]);
    const [token, again] = server.requests.flatMap(({ case: kind, value }) =>
      kind === "createSubscriber" ? [value.requestToken] : []
    );
    assert(token !== 0n && token === again, "it may have been granted before");
    const change = changes.at(-1);
    assert(change?.state === "attached");
    assert.deepEqual([change.recreated, change.failed.map(({ channel }) => channel)], [[], ["/a"]]);
  }));

Deno.test("a server with the process id of another is told from it by when it started", () =>
  withBalancedFds(async () => {
    using scb = SystemControlBlock.create();
    using server = new FakeServer((request) => {
      if (request.case !== "init") return { response: { case: "createSubscriber", value: {} } };
      const value = { sessionId: 1n, scbFdIndex: 0 };
      return { response: { case: "init", value }, fds: [scb.fd.duplicate()] };
    });
    const starts = [1n, 2n, 2n, 0n, null], claims: boolean[] = [];
    const control = new Control({
      socket: server.socket,
      name: "",
      token: 1n,
      requestTimeoutMs: 10_000,
      doorbell: false,
      onConnectionChange: () => {},
      system: {
        ...operatingSystem,
        credentials: () => ({ pid: 4711, uid: 0, gid: 0 }),
        processStart: () => starts[server.connections.length],
      },
    });
    await control.start(10_000);
    await control.create({
      channel: "/a",
      title: "subscriber to /a",
      createRequest: (keepId) => {
        claims.push(keepId);
        return { request: { case: "createSubscriber", value: {} } };
      },
      adopt: () => true,
      removeRequest: () => ({ request: { case: "removeSubscriber", value: {} } }),
      release: () => {},
      fail: () => {},
    });
    while (server.connections.length < starts.length) {
      const before = control.reattachments;
      server.connections.at(-1)!.close();
      await eventually("the client is back", () => control.reattachments > before);
    }
    control.abort();
    assert.deepEqual(claims, [false, true, false, false, false], "one that may be the same has forgotten it");
  }));

Deno.test("a callback that throws does not stop the re-attachment", () =>
  withBalancedFds(async () => {
    using server = new FakeServer(() => greeting());
    const reported: unknown[] = [];
    const report = (event: ErrorEvent) => {
      event.preventDefault();
      reported.push(event.error);
    };
    addEventListener("error", report);
    using client = await Client.connect({
      socket: server.socket,
      onConnectionChange: () => {
        throw new Error("not my day");
      },
    });
    server.connections[0].close();
    await eventually("the client is back", () => client.reattachments === 1);
    removeEventListener("error", report);
    assert.equal(reported.length, 2);
  }));

test("split buffers go on after a restart, and what grew meanwhile is registered", true, async (server) => {
  const client = await server.connect();
  const options = { slotBytes: 64, numSlots: 8, reliable: true, splitBuffers: true };
  const publisher = await client.createPublisher("/a", options);
  const subscriber = await client.createSubscriber("/a", { reliable: true });
  await publisher.send(bytes("before"));
  await server.stop();
  await publisher.send(bytes("x".repeat(9000)));
  assert.deepEqual(readAll(subscriber).map(({ length }) => length), [6, 9000]);
  await server.restart();
  assert.deepEqual(server.outcome, { recreated: [], failed: [] });
  await publisher.send(bytes("after"));
  const late = await client.createSubscriber("/a");
  assert.equal(text(late.readNewest()!.data), "after");
  await eventually("the server knows all parts", () => server.partsOf("/a") === 2 * 9);
});

test("without a shadow split buffers start anew", false, async (server) => {
  const client = await server.connect();
  const options = { slotBytes: 64, numSlots: 8, splitBuffers: true };
  const publisher = await client.createPublisher("/a", options);
  const subscriber = await client.createSubscriber("/a");
  publisher.publish(bytes("before"));
  await server.stop();
  await server.restart();
  assert.deepEqual(server.outcome.recreated, ["/a"]);
  publisher.publish(bytes("after"));
  assert(await subscriber.wait());
  assert.deepEqual(readAll(subscriber), ["after"]);
});
