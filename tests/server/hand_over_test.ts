/** Servers that take over from one another, with real sockets. */

import assert from "node:assert/strict";
import { createEventFd, drain } from "../../ffi/eventfd.ts";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { sendMessage } from "../../ffi/message.ts";
import { reactor, Ready } from "../../ffi/reactor.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { accept, connectAbstract, listenAbstract, socketPair } from "../../ffi/unix_socket.ts";
import { toBinary } from "../../proto/message.ts";
import { RequestSchema } from "../../proto/subspace.ts";
import { Server, type ServerOptions, TakeoverError } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { requestCodec, responseCodec, sendRequest, sendResponse } from "../../wire/client_link.ts";
import { Connection } from "../../wire/connection.ts";
import { frame } from "../../wire/frame.ts";
import { handOverCodec, isTooMuch, sendPart } from "../../wire/hand_over.ts";
import { closeDump, receiveDump, sendDump } from "../../wire/state_dump.ts";
import { until } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { asOtherUser, mayBeOthers } from "../other_user.ts";
import { uniqueSocket } from "../program.ts";
import { describe } from "./core.ts";
import { RawClient } from "./raw_client.ts";

/** A server with a shadow, and all that came after it. */
class House implements AsyncDisposable {
  readonly shadow: Shadow;
  readonly options: ServerOptions;
  readonly #clients: RawClient[] = [];

  private constructor(public server: Server, options: ServerOptions, shadow: Shadow) {
    this.options = options;
    this.shadow = shadow;
  }

  static async build(options: ServerOptions = {}): Promise<House> {
    const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
    const shadow = Shadow.start({ socket: shadowSocket });
    const all = { socket, shadowSocket, ...options };
    return new House(await Server.start(all), all, shadow);
  }

  get socket(): string {
    return this.options.socket!;
  }

  async connect(name?: string, token?: bigint): Promise<RawClient> {
    const client = await RawClient.connect(this.socket, name, token);
    this.#clients.push(client);
    return client;
  }

  /** Somebody who has asked to take over, and now says nothing. */
  async ask(): Promise<Connection> {
    const connection = new Connection(connectAbstract(this.socket), { frameBytesMax: 1 << 30 });
    sendRequest(connection, { request: { case: "takeOver", value: {} } });
    const incoming = await connection.receive(responseCodec);
    assert.deepEqual(
      incoming?.message.response.case === "takeOver" && incoming.message.response.value.error,
      "",
    );
    return connection;
  }

  /** The next server. */
  async takeOver(options: ServerOptions = {}): Promise<Server> {
    const before = this.server;
    this.server = await Server.takeOver({ ...this.options, ...options });
    await before.takenOver;
    return this.server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    await this.server.stop(true);
    this.shadow.stop();
  }
}

function test(name: string, run: (house: House) => Promise<void>, options: ServerOptions = {}): void {
  Deno.test(name, () =>
    withBalancedFds(async () => {
      await using house = await House.build(options);
      await run(house);
    }));
}

test("a server that takes over has all that the other one had, and each client is where it was", async (house) => {
  const client = await house.connect("one", 9n), other = await house.connect("two");
  await client.createPublisher("/a", { notifyRetirement: true, numSlots: 10 });
  await client.createSubscriber("/a");
  await other.createPublisher("/v", { mux: "/mux", numSlots: 10, processId: 77n });
  await other.createSubscriber("/mux");
  await client.removePublisher("/none", 3);
  const { table, counters, sessionId } = house.server;
  const before = describe(table.records());
  const participants = async () =>
    (await client.getChannelInfo()).channels.filter(({ name }) => !name.startsWith("/subspace/")).map((it) =>
      it.participants
    );
  const [whoBefore, refused, accepted] = [
    await participants(),
    counters.refusals.totals(),
    counters.accepted,
  ];

  const server = await house.takeOver();
  assert.equal(server.sessionId, sessionId);
  assert.deepEqual(describe(server.table.records()), before);
  assert.deepEqual(await participants(), whoBefore);
  assert.deepEqual(server.counters.refusals.totals(), refused);
  assert.equal(server.counters.accepted, accepted + 1, "and the one that took over");
  assert.equal(server.numClients, 2);
  await client.createSubscriber("/later");
  const [later] = server.table.find("/later")!.users();
  assert.equal(later.record.info.clientToken, 9n);
  // Each still owns what it had, and nothing of the other's.
  assert.match((await other.removePublisher("/a", 0)).error, /PERMISSION_DENIED/);
  assert.equal((await client.removePublisher("/a", 0)).error, "");
  // Whose connection ends is gone, with all users.
  other.close();
  await until("it is gone", () => server.table.find("/mux") === undefined);
  assert.equal(server.numClients, 1);
});

test("the shadow's connection goes over too: nothing is sent again, and what comes next arrives", async (house) => {
  const client = await house.connect();
  await client.createPublisher("/a");
  await until("the shadow has it", () => house.shadow.state.channels.has("/a"));
  const { generation } = house.shadow.position;
  const accepted = house.shadow.counters.accepted, inits = house.shadow.counters.events;
  for (let i = 0; i < 3; i++) {
    await house.takeOver();
    await client.createPublisher(`/b/${i}`);
    await until("the shadow has it", () => house.shadow.state.channels.has(`/b/${i}`));
  }
  assert.equal(house.shadow.position.generation, generation);
  assert.equal(house.shadow.counters.accepted, accepted, "nobody connects again");
  // Each time a channel with its options and publisher. The server's own publishers would be added anew if it were
  // another process.
  assert.equal(house.shadow.counters.events - inits, 3 * 3);
  assert.deepEqual(house.shadow.counters.refusals.totals(), {});
  assert(house.server.keepsState);
});

test("a shadow that is named anew gets everything, and one that is not named any more is left", async (house) => {
  const socket = uniqueSocket("another");
  using another = Shadow.start({ socket });
  const client = await house.connect();
  await client.createPublisher("/a");
  await house.takeOver({ shadowSocket: socket, shadowPatience: { retryMs: 1 } });
  await until("it has everything", () => another.state.channels.has("/a") && another.position.complete);
  assert.equal(house.server.keepsState, true);
});

test("requests that were sent meanwhile, whole or in part, are answered once and in order", async (house) => {
  const client = await house.connect(), channels = 40;
  for (let round = 0; round < 3; round++) {
    const answers: Promise<string>[] = [];
    const before = house.server, next = Server.takeOver(house.options);
    for (let i = 0; i < channels; i++) {
      const name = `/${round}/${i}`;
      const value = { channelName: name, slotSize: 64, numSlots: 4, publisherId: -1, vchanId: -1 };
      client.send({ case: "createPublisher", value });
      if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    house.server = await next;
    await before.takenOver;
    for (let i = 0; i < channels; i++) {
      const response = await client.receive();
      assert(response.case === "createPublisher" && response.value.error === "", `answer ${i}`);
    }
    assert.deepEqual(answers, []);
    for (let i = 0; i < channels; i++) assert(house.server.table.find(`/${round}/${i}`) !== undefined);
  }
});

test("half a request, and fds without the rest of theirs, go over", async (house) => {
  const client = await house.connect();
  await client.createPublisher("/split", { useSplitBuffers: true });
  const metadata = { channelName: "/split", sessionId: house.server.sessionId };
  const request = { case: "registerClientBuffer", value: { metadata, hasFd: true } } as const;
  const bytes = frame(toBinary(RequestSchema, { request }));
  const { socket } = client.connection;
  sendMessage(socket, bytes.slice(0, 9), []);
  await house.connect();
  await house.takeOver();
  sendMessage(socket, bytes.slice(9), []);
  await house.connect();
  await house.takeOver();
  using fd = createEventFd();
  sendMessage(socket, new Uint8Array([1, 0]), [fd]);
  await house.connect();
  await house.takeOver();
  sendMessage(socket, new Uint8Array([0, 0]), []);
  const response = await client.receive();
  assert(response.case === "registerClientBuffer" && response.value.error === "");
  const buffers = await client.getClientBuffers("/split", house.server.sessionId);
  assert.deepEqual(buffers.fdIndexes, [0]);
  assert.equal(client.fds[0].stat().inode, fd.stat().inode);
});

test("answers that a client has not taken yet go over, with their fds", async (house) => {
  const client = await house.connect();
  for (let i = 0; i < 20; i++) await client.createSubscriber("/a");
  const asked = 300;
  for (let i = 0; i < asked; i++) client.send({ case: "getTriggers", value: { channelName: "/a" } });
  await until("some wait", () => house.server.counters.pauses > 0);
  for (let i = 0; i < 3; i++) await house.takeOver();
  for (let i = 0; i < asked; i++) {
    const response = await client.receive();
    assert(response.case === "getTriggers" && response.value.subTriggerFdIndexes.length === 20);
    assert.equal(client.fds.length, 20);
  }
}, { limits: { requestsInFlightMax: 8 } });

test("a server goes on when whoever wants to take over ends, says nonsense, or lies", async (house) => {
  const client = await house.connect();
  const endings: ((connection: Connection) => void)[] = [
    (connection) => connection.close(),
    (connection) => connection.send(new TextEncoder().encode("garbage")),
    (connection) => sendPart(connection, { case: "taken", value: {} }),
    (connection) => sendPart(connection, { case: "client", value: { name: "I" } }),
  ];
  for (const [i, end] of endings.entries()) {
    using connection = await house.ask();
    client.send({ case: "getChannelInfo", value: { channelName: "" } });
    end(connection);
    const response = await client.receive();
    assert.equal(response.case, "getChannelInfo");
    await client.createPublisher(`/${i}`);
    await until("the shadow has it", () => house.shadow.state.channels.has(`/${i}`));
  }
  assert.equal(house.server.numClients, 1);
  await house.takeOver();
});

test(
  "a server goes on when whoever takes over stops before the end, and then that one cannot any more",
  async (house) => {
    using connection = await house.ask();
    const client = await house.connect();
    assert.equal((await client.createPublisher("/a")).error, "");
    await until("the connection ends", () => {
      while (true) {
        const incoming = connection.tryReceive({ decode: () => 0, fdsFollow: () => false });
        if (incoming === null) return connection.closed;
        closeAll(incoming.fds);
      }
    });
  },
  { takeoverMs: 50 },
);

/** Receives everything up to the baton, and gives it out. */
async function receiveAll(connection: Connection): Promise<Fd> {
  closeDump(await receiveDump(connection));
  while (true) {
    const { message: { part }, fds } = (await connection.receive(handOverCodec))!;
    if (part.case !== "server") closeAll(fds);
    else {
      const [listener, baton, fence] = fds;
      closeAll([listener, fence]);
      return baton;
    }
  }
}

test("a server goes on when whoever takes over ends in the very last steps", async (house) => {
  const client = await house.connect();
  const { subscriberId } = await client.createSubscriber("/a");
  const before = describe(house.server.table.records());
  for (const steps of ["received everything", "took the baton"]) {
    using connection = await house.ask();
    using baton = await receiveAll(connection);
    if (steps === "took the baton") assert(drain(baton.number));
    client.send({ case: "getTriggers", value: { channelName: "/a" } });
    connection.close();
    const response = await client.receive();
    assert(response.case === "getTriggers" && response.value.error === "", steps);
    assert(!drain(baton.number), "whoever goes on has taken the baton");
  }
  assert.deepEqual(describe(house.server.table.records()), before);
  assert.equal((await client.removeSubscriber("/a", subscriberId)).error, "");
  await house.takeOver();
});

test("a new server finds a process that was stopped without the baton too late", async (house) => {
  using connection = await house.ask();
  using baton = await receiveAll(connection);
  const client = await house.connect();
  assert.equal((await client.createPublisher("/a")).error, "", "it went on when time was up");
  assert(!drain(baton.number));
  assert.equal(await connection.receive(handOverCodec), null);
}, { takeoverMs: 50 });

test("a client that leaves at the moment of a hand-over is not handed over", async (house) => {
  const leaving = await house.connect("leaving");
  using connection = new Connection(connectAbstract(house.socket), { frameBytesMax: 1 << 30 });
  sendRequest(connection, { request: { case: "getChannelInfo", value: {} } });
  await connection.receive(responseCodec);
  sendRequest(connection, { request: { case: "takeOver", value: {} } });
  leaving.close();
  await connection.receive(responseCodec);
  closeDump(await receiveDump(connection));
  const parts: unknown[] = [];
  while (parts.at(-1) !== "server") {
    const incoming = await connection.receive(handOverCodec);
    assert(incoming !== null, `the hand-over ended after ${parts.join()}`);
    closeAll(incoming.fds);
    parts.push(incoming.message.part.case);
  }
  assert.deepEqual(parts, ["shadow", "server"]);
});

test("a client with too much on its way is left to connect again, and finds what it had", async (house) => {
  const client = await house.connect(), other = await house.connect();
  await client.createPublisher("/a");
  const { subscriberId } = await client.createSubscriber("/a");
  const endless = frame(new Uint8Array(5 << 20)).subarray(0, -1);
  for (let sent = 0; sent < endless.length;) {
    sent += sendMessage(client.connection.socket, endless.slice(sent), []);
    await other.getChannelInfo();
  }
  const server = await house.takeOver();
  assert.equal((await other.createPublisher("/b")).error, "", "nobody else notices");
  await until(
    "it is told",
    () => client.connection.tryReceive(responseCodec) === null && client.connection.closed,
  );
  assert.deepEqual([server.numClients, server.table.numOrphans], [1, 2]);
  const again = await house.connect();
  assert.equal((await again.createSubscriber("/a", { subscriberId })).subscriberId, subscriberId);
  assert.equal(server.table.numOrphans, 1);
}, { limits: { frameBytesMax: 8 << 20 } });

Deno.test("too much is more than 4 MiB, or more than 4096 fds, wherever they are", () =>
  withBalancedFds(() => {
    using fd = createEventFd();
    const fds = Array<Fd>(2048).fill(fd), bytes = new Uint8Array(2 << 20);
    const most = {
      pending: bytes,
      pendingFds: [],
      input: new Uint8Array(),
      arrivals: [{ end: 0, fds }],
      outbound: [{ bytes, fds }],
    };
    assert(!isTooMuch(most));
    assert(isTooMuch({ ...most, input: new Uint8Array(1) }));
    assert(isTooMuch({ ...most, pendingFds: [fd] }));
  }));

/** Somebody who listens as if it were a server, and hands over a session without channels and then such a part. */
async function offered(part: Parameters<typeof sendPart>[1], fds: readonly Fd[]): Promise<TakeoverError> {
  const socket = uniqueSocket("false");
  using scb = createMemory("scb", 14336);
  using listener = listenAbstract(socket);
  using connections = new DisposableStack();
  using _watch = reactor().watch(listener, Ready.readable, async () => {
    const connection = connections.use(new Connection(accept(listener)!));
    await connection.receive(requestCodec);
    sendResponse(connection, { response: { case: "takeOver", value: { error: "" } } }, []);
    await sendDump(connection, { sessionId: 7n, scb, channels: new Map() }, 1000);
    sendPart(connection, part, fds);
  });
  return await Server.takeOver({ socket }).then(() => assert.fail("it took over"), (error) => error);
}

Deno.test("who hands over fewer fds than none is not believed", () =>
  withBalancedFds(async () => {
    const [here, there] = socketPair();
    using _here = here;
    using peer = there;
    for (const counts of [{ numPendingFds: -1, arrivals: [{ end: 0, numFds: 1 }] }, { numPendingFds: -2 }]) {
      const error = await offered({ case: "client", value: { connection: counts } }, [peer]);
      assert.match(error.message, /Failed to parse hand-over: it counts -\d fds/);
    }
  }));

test("one at a time takes over", async (house) => {
  using _first = await house.ask();
  await assert.rejects(Server.takeOver({ ...house.options, takeoverMs: 100 }), (error) => {
    assert(error instanceof TakeoverError);
    assert.match(error.message, /^Cannot take over the server at .*: it did not hand over in time/);
    return true;
  });
}, { takeoverMs: 2_000 });

test("a server that is stopped while it hands over stops afterwards", async (house) => {
  using connection = await house.ask();
  const stopped = house.server.stop();
  connection.close();
  await stopped;
});

Deno.test("where no server runs, one that is to take over starts", () =>
  withBalancedFds(async () => {
    const server = await Server.takeOver({ socket: uniqueSocket("server") });
    await server.stop();
  }));

Deno.test("a server that knows nothing of it, as those in C++, is left alone, with a clear error", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("theirs");
    using listener = listenAbstract(socket);
    using _watch = reactor().watch(listener, Ready.readable, () => {
      const connection = new Connection(accept(listener)!);
      connection.onReadable = () => connection.close();
    });
    await assert.rejects(Server.takeOver({ socket }), (error) => {
      assert(error instanceof TakeoverError);
      assert.match(
        error.message,
        /^Cannot take over the server at .*: it closed the connection.*Stop it first$/,
      );
      return true;
    });
  }));

if (mayBeOthers) {
  test("another user cannot take over, even one that may be a client", async (house) => {
    using connection = new Connection(asOtherUser(() => connectAbstract(house.socket)));
    sendRequest(connection, { request: { case: "takeOver", value: {} } });
    const incoming = await connection.receive(responseCodec);
    assert(incoming?.message.response.case === "takeOver");
    assert.match(incoming.message.response.value.error, /^PERMISSION_DENIED: only root and the user/);
    // The connection is as good as before.
    sendRequest(connection, { request: { case: "getChannelInfo", value: {} } });
    assert.equal((await connection.receive(responseCodec))?.message.response.case, "getChannelInfo");
    assert.equal(house.server.counters.refusals.of("access"), 1);
  }, { access: { anybody: true } });

  Deno.test("nothing is taken over from another user", () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("server");
      using _listener = asOtherUser(() => listenAbstract(socket));
      await assert.rejects(
        Server.takeOver({ socket }),
        (error) =>
          error instanceof TakeoverError && /: it runs as another user \(uid \d+/.test(error.message),
      );
    }));
} else {
  for (const name of ["another user cannot take over", "nothing is taken over from another user"]) {
    Deno.test({ name: `${name} (needs root)`, ignore: true, fn() {} });
  }
}
