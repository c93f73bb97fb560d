import assert from "node:assert/strict";
import { configureSync, type LogRecord, resetSync } from "@logtape/logtape";
import { createEventFd } from "../../ffi/eventfd.ts";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { accept, connectAbstract, listenAbstract } from "../../ffi/unix_socket.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { Connection } from "../../wire/connection.ts";
import { receiveEvent, sendEvent } from "../../wire/shadow_link.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { until } from "../shadow/peer.ts";
import { Core, describe } from "./core.ts";

const name = "/a";

/** A shadow of which a test decides what it does. */
class Puppet implements Disposable {
  readonly socket = uniqueSocket("puppet");
  readonly #listener: Fd = listenAbstract(this.socket);
  connection: Connection | null = null;

  async accept(): Promise<Connection> {
    let socket: Fd | null = null;
    await until("a server connects", () => (socket = accept(this.#listener)) !== null);
    return this.connection = new Connection(socket!);
  }

  /** Accepts and sends an empty dump. */
  async welcome(): Promise<Connection> {
    const connection = await this.accept();
    sendEvent(connection, { event: { case: "stateDump", value: {} } });
    sendEvent(connection, { event: { case: "stateDone", value: {} } });
    return connection;
  }

  [Symbol.dispose](): void {
    this.connection?.close();
    this.#listener.close();
  }
}

/** Collects what the server logs. */
function capture(): { lines: string[] } & Disposable {
  const lines: string[] = [];
  const sink = ({ level, message }: LogRecord) => {
    const text = message.map((part) => Array.isArray(part) ? part.join("\n") : String(part)).join("");
    for (const line of text.split("\n")) lines.push(`${level}: ${line}`);
  };
  configureSync({
    reset: true,
    sinks: { lines: sink },
    loggers: [
      { category: ["subspace", "server"], sinks: ["lines"], lowestLevel: "debug" },
      { category: ["logtape", "meta"], sinks: [], lowestLevel: "fatal" },
    ],
  });
  return { lines, [Symbol.dispose]: () => resetSync() };
}

Deno.test("the lines that users match on are there, with both shadows and after a restart", () =>
  withBalancedFds(async () => {
    using log = capture();
    const [primary, secondary] = [uniqueSocket("one"), uniqueSocket("two")];
    using _one = Shadow.start({ socket: primary });
    using _two = Shadow.start({ socket: secondary });
    const before = await Core.start({ primary, secondary });
    const { sessionId } = before.table;
    before.publisher(before.channel(name));
    const { physical } = before.channel("/mux", {}, true);
    before.subscriber(before.table.createVirtualChannel("/v", physical, 0));
    await before.crash();
    assert.deepEqual(log.lines.splice(0), [
      "info: Received state dump from shadow (session_id=0, 0 channels)",
      "info: Received state dump from shadow (session_id=0, 0 channels)",
      "info: Connected to primary shadow process",
      "info: Connected to secondary shadow process",
    ]);
    await using _after = await Core.start({ primary, secondary });
    assert.match(
      log.lines.splice(2, 1)[0],
      /^info: Recovering from primary shadow: it is named first of those that are equal \(generation \d+, offset 5\)$/,
    );
    assert.deepEqual(log.lines, [
      `info: Received state dump from shadow (session_id=${sessionId}, 3 channels)`,
      `info: Received state dump from shadow (session_id=${sessionId}, 3 channels)`,
      "info: Recovered channel '/a' (id=0, 1 pubs, 0 subs)",
      "info: Recovered channel '/mux' (id=1, 0 pubs, 0 subs)",
      "info: Recovered virtual channel '/v' on mux '/mux' (0 pubs, 1 subs)",
      `info: Recovered 3 channels from primary shadow (session_id=${sessionId})`,
      "info: Connected to primary shadow process",
      "info: Connected to secondary shadow process",
    ]);
  }));

Deno.test("a shadow that is not there is a warning, and the server starts without it", () =>
  withBalancedFds(async () => {
    using log = capture();
    const primary = uniqueSocket("nobody");
    await using core = await Core.start({ primary });
    core.publisher(core.channel(name));
    assert.deepEqual(log.lines, [
      `warning: Failed to connect to primary shadow: Cannot connect to ${primary}: ECONNREFUSED`,
    ]);
  }));

Deno.test("a shadow that sends something else than a dump, or half of one, is not used", () =>
  withBalancedFds(async () => {
    const openings: [(connection: Connection) => void, RegExp][] = [
      [
        (connection) => connection.send(new TextEncoder().encode("garbage, and lots of it")),
        /Failed to parse/,
      ],
      [
        (connection) => sendEvent(connection, { event: { case: "stateDone", value: {} } }),
        /starts with stateDone/,
      ],
      [(connection) => connection.send(new Uint8Array()), /starts with nothing/],
      [(connection) => connection.close(), /connection was closed/],
      [(connection) => {
        sendEvent(connection, { event: { case: "stateDump", value: { numChannels: 1 } } });
        connection.close();
      }, /connection was closed/],
      [(connection) => {
        sendEvent(connection, { event: { case: "stateDump", value: {} } });
        sendEvent(connection, { event: { case: "updateChannelOptions", value: { channelName: name } } });
      }, /Cannot accept updateChannelOptions in a state dump/],
      [(connection) => {
        const fds = [createEventFd(), createEventFd()];
        sendEvent(connection, { event: { case: "stateDump", value: {} } });
        sendEvent(connection, { event: { case: "addSubscriber", value: { channelName: name } } }, fds);
        closeAll(fds);
      }, /unknown channel \/a/],
      [() => {}, /not complete within 100 ms/],
    ];
    for (const [open, reason] of openings) {
      using log = capture();
      using puppet = new Puppet();
      const starting = Core.start({ primary: puppet.socket }, { dumpMs: 100 });
      open(await puppet.accept());
      await using core = await starting;
      assert.equal(core.table.size, 0);
      assert.equal(log.lines.length, 1);
      assert.match(log.lines[0], /^warning: Failed to receive state dump from primary shadow: Cannot /);
      assert.match(log.lines[0], reason);
    }
  }));

Deno.test("events come to a shadow in order: init, then everything, then what happens", () =>
  withBalancedFds(async () => {
    using puppet = new Puppet();
    const starting = Core.start({ primary: puppet.socket });
    const connection = await puppet.welcome();
    await using core = await starting;
    const channel = core.channel(name, { type: "T" });
    const publisher = core.publisher(channel, { notifyRetirement: true });
    const subscriber = core.subscriber(channel);
    core.table.replicateOptions(channel.physical);
    core.table.remove(subscriber, true);
    core.table.remove(publisher, true);
    const seen: string[] = [];
    while (seen.at(-1) !== "removeChannel") {
      const incoming = await receiveEvent(connection);
      seen.push(incoming!.message.event.case!);
      closeAll(incoming!.fds);
    }
    assert.deepEqual(seen, [
      "init",
      "createChannel",
      "addPublisher",
      "addSubscriber",
      "updateChannelOptions",
      "removeSubscriber",
      "removePublisher",
      "removeChannel",
    ]);
  }));

Deno.test("9.2, 20: a shadow that does not read makes nobody wait, and gets everything again when it reads", () =>
  withBalancedFds(async () => {
    using log = capture();
    using puppet = new Puppet();
    const secondary = uniqueSocket("good");
    using good = Shadow.start({ socket: secondary });
    const starting = Core.start({ primary: puppet.socket, secondary, journalChangesMax: 100 });
    const connection = await puppet.welcome();
    await using core = await starting;
    const [stopped] = core.replication.shadows;
    log.lines.length = 0;
    const channel = core.channel(name);
    core.publisher(channel);
    while (stopped.lag < 200) {
      core.table.remove(core.subscriber(channel), true);
      await until("the good shadow keeps up", () => core.replication.shadows[1].lag === 0);
    }
    assert(good.state.channels.has(name));
    assert(core.replication.shadows.every(({ connected }) => connected));
    assert.deepEqual(log.lines, []);
    for (let inits = 0, publishers = 0; inits < 2 || publishers === 0;) {
      const { message: { event }, fds } = (await receiveEvent(connection))!;
      closeAll(fds);
      if (event.case === "addPublisher") publishers++;
      if (event.case !== "init") continue;
      inits++;
      publishers = 0;
    }
    assert.equal(stopped.syncFull.get("behind"), 1);
    assert.match(log.lines.join(), /the primary shadow gets everything \(sync_full=1, reason=behind\)/);
    await until("nothing is left to say", () => stopped.lag === 0);
  }));

Deno.test("a shadow that reads nothing at the start is given up after a while", () =>
  withBalancedFds(async () => {
    using log = capture();
    const secondary = uniqueSocket("good");
    using _good = Shadow.start({ socket: secondary });
    const before = await Core.start({ secondary });
    for (let i = 0; i < 300; i++) {
      before.channel(`/${i}`);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await before.crash();
    using puppet = new Puppet();
    const starting = Core.start({ primary: puppet.socket, secondary }, { stallMs: 50 });
    await puppet.welcome();
    await using after = await starting;
    assert.equal(after.table.size, 300);
    assert.match(
      log.lines.join("\n"),
      /error: Shadow: send failed: the primary shadow is lost.*read nothing for 50 ms/,
    );
    assert(log.lines.includes("info: Connected to secondary shadow process"));
    assert(!log.lines.slice(4).includes("info: Connected to primary shadow process"));
  }));

Deno.test("a shadow that dies is noticed at once and logged once", () =>
  withBalancedFds(async () => {
    using log = capture();
    const primary = uniqueSocket("mortal");
    const shadow = Shadow.start({ socket: primary });
    await using core = await Core.start({ primary });
    log.lines.length = 0;
    shadow.stop();
    await until("it is noticed", () => log.lines.length > 0);
    core.publisher(core.channel(name));
    assert.equal(log.lines.length, 1);
    assert.match(log.lines[0], /^error: Shadow: send failed: the primary shadow is lost/);
  }));

Deno.test("a shadow that talks back is dropped", () =>
  withBalancedFds(async () => {
    using log = capture();
    using puppet = new Puppet();
    const starting = Core.start({ primary: puppet.socket });
    const connection = await puppet.welcome();
    await using _core = await starting;
    log.lines.length = 0;
    const fds = [createEventFd()];
    sendEvent(connection, { event: { case: "init", value: { sessionId: 1n } } }, fds);
    closeAll(fds);
    await until("it is dropped", () => log.lines.length > 0);
    assert.match(log.lines[0], /Cannot accept init from a shadow/);
  }));

Deno.test("closing sends what is left, or gives up in time", () =>
  withBalancedFds(async () => {
    using log = capture();
    using puppet = new Puppet();
    const socket = uniqueSocket("good");
    using good = Shadow.start({ socket });
    const starting = Core.start({ primary: puppet.socket, secondary: socket }, { closeMs: 50 });
    await puppet.welcome();
    const core = await starting;
    for (let i = 0; i < 600; i++) core.channel(`/${i}`);
    log.lines.length = 0;
    await core.crash();
    await until("the good one has all", () => good.state.channels.size === 600);
    assert.deepEqual(log.lines, []);
  }));

Deno.test("a shadow that missed ten changes gets ten, and one that missed too many gets everything", () =>
  withBalancedFds(async () => {
    for (const [missed, partial] of [[10, 1], [30, 0]]) {
      const primary = uniqueSocket("away");
      using shadow = Shadow.start({ socket: primary });
      await using core = await Core.start({ primary, journalChangesMax: 20 }, { retryMs: 1 });
      const [link] = core.replication.shadows;
      for (let i = 0; i < 100; i++) core.channel(`/old/${i}`);
      await until("it has them", () => shadow.state.channels.size === 100);
      shadow.disconnect();
      for (let i = 0; i < missed; i++) core.channel(`/new/${i}`);
      const before = shadow.counters.events;
      await until("it has the new ones", () => shadow.state.channels.size === 100 + missed);
      await until("it is at the end", () => shadow.position.offset === BigInt(100 + missed));
      assert.equal(link.syncPartial, partial);
      assert.equal(link.syncFull.get("behind") ?? 0, 1 - partial);
      // With the words that begin and end it.
      if (partial === 1) assert.equal(shadow.counters.events - before, missed + 2);
    }
  }));

Deno.test("a shadow that was restarted, or was never there, joins a running server and gets everything", () =>
  withBalancedFds(async () => {
    const names = [uniqueSocket("one"), uniqueSocket("two"), uniqueSocket("three")];
    const [primary, secondary, third] = names;
    const one = Shadow.start({ socket: primary });
    using two = Shadow.start({ socket: secondary });
    await using before = await Core.start({ primary, secondary, more: [third] }, { retryMs: 1 });
    before.publisher(before.channel(name));
    one.stop();
    before.subscriber(before.table.find(name)!);
    using three = Shadow.start({ socket: third });
    using again = Shadow.start({ socket: primary });
    await until("all are back", () => before.replication.shadows.every(({ connected }) => connected));
    before.channel("/b");
    for (const shadow of [two, three, again]) {
      await until("it has all", () => shadow.state.channels.size === 2);
      assert.equal(shadow.state.channels.get(name)!.subscribers.size, 1);
      assert.deepEqual(shadow.position, two.position);
    }
    assert.deepEqual(before.replication.shadows.map(({ syncFull }) => [...syncFull]), [
      [["start", 1], ["new", 1]],
      [["start", 1]],
      [["new", 1]],
    ]);
    assert.deepEqual(before.replication.shadows.map(({ label }) => label), ["primary", "secondary", "3rd"]);
  }));

Deno.test("a server recovers from the freshest copy and says why, unless a shadow is preferred", () =>
  withBalancedFds(async () => {
    for (const prefer of [false, true]) {
      const primary = uniqueSocket("stale"), secondary = uniqueSocket("fresh");
      using _stale = Shadow.start({ socket: primary });
      using _fresh = Shadow.start({ socket: secondary });
      const first = await Core.start({ primary });
      first.channel("/stale");
      await first.crash();
      const second = await Core.start({ secondary });
      second.channel("/fresh");
      await second.crash();
      using log = capture();
      await using third = await Core.start({ primary, secondary, prefer: prefer ? primary : undefined });
      assert.deepEqual([...third.table.channels()].map(({ name }) => name), [prefer ? "/stale" : "/fresh"]);
      const reason = prefer
        ? /Recovering from primary shadow: it is preferred/
        : /Recovering from secondary shadow: its copy is of a newer server .* than that of the primary shadow/;
      assert.match(log.lines.join("\n"), reason);
    }
  }));

Deno.test("a shadow that lags is not what a server recovers from", () =>
  withBalancedFds(async () => {
    const primary = uniqueSocket("lagging"), secondary = uniqueSocket("good");
    using lagging = Shadow.start({ socket: primary });
    using _good = Shadow.start({ socket: secondary });
    const before = await Core.start({ primary, secondary }, { retryMs: 60_000 });
    before.channel("/a");
    await until("both have it", () => lagging.state.channels.size === 1);
    lagging.disconnect();
    before.channel("/b");
    await before.crash();
    using log = capture();
    await using after = await Core.start({ primary, secondary });
    assert.equal(after.table.size, 2);
    assert.match(log.lines.join("\n"), /Recovering from secondary shadow: its copy has more events/);
  }));

Deno.test("a server goes on where it was recovered from, in a generation of its own, and sends others everything", () =>
  withBalancedFds(async () => {
    const primary = uniqueSocket("source"), secondary = uniqueSocket("other");
    using source = Shadow.start({ socket: primary });
    using other = Shadow.start({ socket: secondary });
    const before = await Core.start({ primary, secondary });
    const channel = before.channel(name);
    before.publisher(channel, { notifyRetirement: true });
    before.subscriber(channel);
    channel.physical.maxPublishers = 3;
    before.table.replicateOptions(channel.physical);
    const { physical } = before.channel("/mux", {}, true);
    before.table.createVirtualChannel("/v", physical, 0);
    await before.crash();
    await until("both have it", () => [source, other].every(({ position }) => position.offset === 6n));
    const position = source.position, { events } = source.counters;
    await using after = await Core.start({ primary, secondary });
    const [one, two] = after.replication.shadows;
    assert.deepEqual([[...one.syncFull], one.syncPartial], [[], 1]);
    assert.deepEqual([[...two.syncFull], two.syncPartial], [[["start", 1]], 0]);
    after.table.replicateOptions(after.table.find(name)!.physical);
    after.table.remove([...after.table.find(name)!.users()][0], true);
    for (const shadow of [source, other]) {
      await until("it has what changed", () => shadow.position.offset === 1n);
      assert.deepEqual(shadow.position, {
        generation: after.replication.generation,
        offset: 1n,
        complete: true,
      });
      assert.deepEqual(describe(shadow.state.channels.values()), describe(after.table.records()));
    }
    assert(after.replication.generation > position.generation);
    // With the words that begin and end it.
    assert.equal(source.counters.events - events, 3);

    const link = new Connection(connectAbstract(`${primary}.replication`));
    closeAll((await receiveEvent(link))!.fds);
    sendEvent(link, { event: { case: "resume", value: { position } } });
    assert.equal(await receiveEvent(link), null, "the server before is refused when it comes back");
  }));

Deno.test("a server that could not take over all of a shadow's state sends it everything", () =>
  withBalancedFds(async () => {
    const primary = uniqueSocket("source");
    using shadow = Shadow.start({ socket: primary });
    const before = await Core.start({ primary });
    before.channel("/a");
    before.channel("/b");
    await before.crash();
    await until("it has both", () => shadow.position.offset === 2n);
    shadow.state.channels.get("/b")!.info.slotSize = -1;
    await using after = await Core.start({ primary });
    assert.deepEqual([...after.replication.shadows[0].syncFull], [["start", 1]]);
    await until("what is left is aside", () => shadow.previous !== null);
    assert.deepEqual([...shadow.state.channels.keys()], ["/a"]);
  }));

Deno.test("a shadow that was told half of a change to a multiplexer gets everything from the next server", () =>
  withBalancedFds(async () => {
    const primary = uniqueSocket("source");
    using shadow = Shadow.start({ socket: primary });
    const before = await Core.start({ primary });
    const { physical } = before.channel("/mux", { numSlots: 0 }, true);
    before.subscriber(before.table.createVirtualChannel("/v", physical, 0));
    before.table.effects = {
      ...before.table.effects,
      replicate: (event, fds) => {
        const [of] = event.event?.case === "createChannel" ? [event.event.value.channelName] : [];
        if (of === "/mux") before.replication.replicate(event, fds);
      },
    };
    before.table.remap(physical, { ...physical.layout, numSlots: 4, slotBytes: 64 }, 0);
    await before.crash();
    await until("it was told half", () => shadow.position.offset === 4n);
    await using after = await Core.start({ primary });
    assert.deepEqual([...after.replication.shadows[0].syncFull], [["start", 1]]);
    await until("it has all", () => shadow.position.generation === after.replication.generation);
    assert.deepEqual(describe(shadow.state.channels.values()), describe(after.table.records()));
  }));
