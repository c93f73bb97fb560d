import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { drain, signal } from "../../ffi/eventfd.ts";
import { Fd } from "../../ffi/fd.ts";
import { cstring, libc } from "../../ffi/libc.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { createMemory, openNamed, truncate, unlinkNamed } from "../../ffi/memory_object.ts";
import { readInt32, writeInt32 } from "../../ffi/pipe.ts";
import { ClientBufferHandleMetadataProtoSchema } from "../../proto/subspace_pb.ts";
import { systemHost } from "../../server/host.ts";
import { recover } from "../../server/recovery.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { Ccb, QueueIndex } from "../../shm/layout.ts";
import { type ChannelRecord, closeDump, receiveDump, type StateDump } from "../../wire/state_dump.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { Peer, until } from "../shadow/peer.ts";
import { Core, describe, inOldProtocol } from "./core.ts";

const name = "/a";
const O_CLOEXEC = 0o2000000;

function shadowOn(socket = uniqueSocket("shadow")): { shadow: Shadow; socket: string } & Disposable {
  const shadow = Shadow.start({ socket });
  return { shadow, socket, [Symbol.dispose]: () => shadow.stop() };
}

/** Runs a scenario with a shadow, and checks that it leaves no fd behind. */
function withShadow(run: (primary: string, shadow: Shadow) => Promise<void>): () => Promise<void> {
  return () =>
    withBalancedFds(async () => {
      using kept = shadowOn();
      await run(kept.socket, kept.shadow);
    });
}

/** A server that dies and one that takes its place. */
async function restarted(core: Core, primary: string): Promise<Core> {
  await core.crash();
  return await Core.start({ primary });
}

/** What a server that starts now would be given. */
async function dumpOf(socket: string): Promise<StateDump> {
  using peer = new Peer(socket);
  return await receiveDump(peer.connection);
}

Deno.test("ServerWithoutShadowSocketWorks: without shadows a session is fresh, and events go nowhere", () =>
  withBalancedFds(async () => {
    await using core = await Core.start({});
    const channel = core.channel(name);
    core.publisher(channel);
    assert(core.table.sessionId > 0n);
    assert.equal(core.table.size, 1);
  }));

Deno.test(
  "ServerRecoversStateFromShadow: session, ids, memory, users and counters are what they were",
  withShadow(async (primary) => {
    await using before = await Core.start({ primary });
    const channel = before.channel(name, {
      numSlots: 10,
      slotBytes: 128,
      type: "T",
      checksumBytes: 20,
      metadataBytes: 16,
    });
    before.publisher(channel, { isReliable: true, notifyRetirement: true, maxOutstandingSlotLeases: 3 });
    before.subscriber(channel, { isReliable: true, maxActiveMessages: 2 });
    before.publisher(before.channel("/b"));
    const state = describe(before.table.records());
    const { sessionId } = before.table;

    await using after = await restarted(before, primary);
    assert.equal(after.table.sessionId, sessionId);
    assert.deepEqual(describe(after.table.records()), state);
    const recovered = after.table.find(name)!;
    const { counters, layout, type } = recovered.physical;
    assert.deepEqual(layout, { numSlots: 10, slotBytes: 128, checksumBytes: 20, metadataBytes: 16 });
    assert.equal(new TextDecoder().decode(type), "T");
    assert.deepEqual(
      [counters.numPubs, counters.numReliablePubs, counters.numSubs, counters.numReliableSubs],
      [1, 1, 1, 1],
    );
    assert.deepEqual([...recovered.users()].map(({ id, client }) => [id, client]), [[0, null], [1, null]]);
    assert.equal(recovered.physical.channel.physical.blocks.numSubscribers(), 1);
  }),
);

Deno.test(
  "the eventfds and the retirement pipe of a recovered user are the ones that its client holds",
  withShadow(async (primary) => {
    await using before = await Core.start({ primary });
    const publisher = before.publisher(before.channel(name), { notifyRetirement: true });
    const subscriber = before.subscriber(before.table.find(name)!);
    using trigger = subscriber.record.trigger.duplicate();
    using pipe = publisher.record.retirement!.read.duplicate();
    await using after = await restarted(before, primary);
    const recovered = after.table.find(name)!;
    signal(recovered.subscribers.get(1)!.record.trigger.number);
    assert(drain(trigger.number));
    assert(writeInt32(recovered.publishers.get(0)!.record.retirement!.write.number, 3));
    assert.equal(readInt32(pipe.number), 3);
  }),
);

Deno.test(
  "RecoveryRebuildsCcbSubscriberRegistrations: a subscriber that the memory has lost is put back",
  withShadow(async (primary) => {
    await using before = await Core.start({ primary });
    const channel = before.channel(name);
    before.publisher(channel);
    before.subscriber(channel);
    {
      using ccb = Mapping.map(channel.physical.blocks.ccbFd, Ccb.slots);
      ccb.bytes.fill(0, Ccb.subscribers + 8, Ccb.subscribers + 136);
      ccb.bytes.fill(0, Ccb.numSubs, Ccb.numSubs + 4096);
    }
    assert.equal(channel.physical.blocks.numSubscribers(), 0);
    await using after = await restarted(before, primary);
    const { blocks } = after.table.find(name)!.physical;
    assert.equal(blocks.numSubscribers(), 1);
    assert(blocks.hasSubscriber(1));
  }),
);

Deno.test(
  "ServerRecoversSplitBufferStateFromShadow, SplitBufferMessageDataSurvivesRecovery: registrations and their memory",
  withShadow(async (primary, shadow) => {
    await using before = await Core.start({ primary });
    const { physical } = before.channel(name);
    before.publisher(physical.channel);
    physical.splitBuffers = { useSplitBuffers: true, splitBuffersOverBridge: false };
    before.table.replicateOptions(physical);
    for (let part = 0; part < 5; part++) {
      const metadata = create(ClientBufferHandleMetadataProtoSchema, {
        channelName: name,
        sessionId: before.table.sessionId,
        slotId: Math.max(part - 1, 0),
        isPrefix: part === 0,
        fullSize: 256n,
      });
      const fd = part === 4 ? null : createMemory("slot", 4096);
      if (fd !== null) {
        using memory = Mapping.map(fd, 4096);
        memory.bytes.fill(part + 1);
      }
      before.table.registerBuffer(physical, { metadata, fd });
    }
    await until("the shadow has all", () => shadow.state.channels.get(name)?.clientBuffers.size === 5);
    await using after = await restarted(before, primary);
    const recovered = after.table.find(name)!.physical;
    assert.deepEqual(recovered.splitBuffers, { useSplitBuffers: true, splitBuffersOverBridge: false });
    const content = [...recovered.clientBuffers.values()].map(({ fd }) => {
      if (fd === null) return null;
      using memory = Mapping.map(fd, 4096);
      return memory.bytes[4095];
    });
    assert.deepEqual(content, [1, 2, 3, 4, null]);
  }),
);

Deno.test(
  "ShadowTracksPlaceholderRemap: the memory that replaced a placeholder's is the one that is recovered",
  withShadow(async (primary, shadow) => {
    await using before = await Core.start({ primary });
    const channel = before.channel(name, { numSlots: 0, slotBytes: 0 });
    before.subscriber(channel, { maxActiveMessages: 2 });
    await until("the placeholder is there", () => shadow.state.channels.get(name)?.subscribers.size === 1);
    assert.equal(shadow.state.channels.get(name)!.info.numSlots, 0);
    const layout = { numSlots: 4, slotBytes: 256, checksumBytes: 4, metadataBytes: 0 };
    before.table.remap(channel.physical, layout, 0);
    before.publisher(channel);
    const state = describe(before.table.records());
    await using after = await restarted(before, primary);
    assert.deepEqual(describe(after.table.records()), state);
    assert.deepEqual(after.table.find(name)!.physical.layout, layout);
  }),
);

Deno.test(
  "a placeholder is recovered as one",
  withShadow(async (primary) => {
    await using before = await Core.start({ primary });
    before.subscriber(before.channel(name, { numSlots: 0, slotBytes: 0 }));
    await using after = await restarted(before, primary);
    assert(after.table.find(name)!.physical.isPlaceholder);
    assert.equal(after.table.find(name)!.subscribers.size, 1);
  }),
);

Deno.test(
  "ServerFunctionalAfterRecovery: new channels and users get ids that nobody has",
  withShadow(async (primary, shadow) => {
    await using before = await Core.start({ primary });
    before.publisher(before.channel(name));
    before.publisher(before.channel("/b"));
    await using after = await restarted(before, primary);
    const created = after.channel("/c");
    assert.equal(created.physical.id, 2);
    assert.equal(after.publisher(created).id, 0);
    const recovered = after.table.find(name)!;
    assert.equal(after.subscriber(recovered).id, 1);
    await until("the shadow has all", () => shadow.state.channels.get(name)?.subscribers.size === 1);
    after.table.disconnect(after.client);
    await until("the shadow follows", () => !shadow.state.channels.has("/c"));
    assert.deepEqual([...shadow.state.channels.keys()], [name, "/b"]);
  }),
);

Deno.test(
  "RecoversMuxSubscriberQueueTopology: multiplexer, virtual channels, queues and capacity are what they were",
  withShadow(async (primary) => {
    await using before = await Core.start({ primary });
    const { physical } = before.channel(
      "/mux",
      { numSlots: 32, slotBytes: 64, queueArenaBytes: 64000 },
      true,
    );
    physical.maxSubscribers = 2;
    before.table.settingsChanged(physical);
    const v0 = before.table.createVirtualChannel("/mux/0", physical, 0);
    const v7 = before.table.createVirtualChannel("/mux/7", physical, 7);
    before.publisher(v0, { maxOutstandingSlotLeases: 3 });
    before.subscriber(physical.channel, { subscriberQueueSize: 4 });
    before.subscriber(v7);
    const offsetOf = (id: number) => {
      using ccb = Mapping.map(physical.blocks.ccbFd, physical.blocks.bytes);
      const index = physical.blocks.bytes - 64000 - QueueIndex.paddedBytes;
      return ccb.view.getBigUint64(index + QueueIndex.offsets + 8 * id, true);
    };
    const queues = [offsetOf(1), offsetOf(2)];
    assert.notEqual(queues[0], queues[1]);
    const counts = [-1, 0, 7].map((vchanId) => physical.blocks.numSubscribers(vchanId));
    const state = describe(before.table.records());

    using ccb = physical.blocks.ccbFd.duplicate();
    await using after = await restarted(before, primary);
    assert.deepEqual(describe(after.table.records()), state);
    const mux = after.table.find("/mux")!;
    assert(mux.isMultiplexer);
    assert.equal(after.table.find("/mux/7")!.vchanId, 7);
    assert.equal(mux.physical.maxSubscribers, 2);
    assert.deepEqual(
      [mux.physical.census.slotLeases, mux.physical.census.activeMessages, mux.physical.census.subscribers],
      [3, 2, 2],
    );
    const { blocks } = mux.physical;
    assert.deepEqual([blocks.subscriberVchan(1), blocks.subscriberVchan(2)], [-1, 7]);
    assert.deepEqual([-1, 0, 7].map((vchanId) => blocks.numSubscribers(vchanId)), counts);
    using mapped = Mapping.map(ccb, blocks.bytes);
    const index = blocks.bytes - 64000 - QueueIndex.paddedBytes;
    const offsets = [1, 2].map((id) => mapped.view.getBigUint64(index + QueueIndex.offsets + 8 * id, true));
    assert.deepEqual(offsets, queues);
    assert.equal(after.subscriber(mux).id, 3);
    assert.equal(after.table.createVirtualChannel("/mux/8", mux.physical, 8).physical, mux.physical);
  }),
);

Deno.test("RecoverFromPrimaryWhenBothHealthy: both shadows have all, and the primary is believed", () =>
  withBalancedFds(async () => {
    using one = shadowOn();
    using two = shadowOn();
    const names = { primary: one.socket, secondary: two.socket };
    await using before = await Core.start(names);
    before.publisher(before.channel(name));
    const state = describe(before.table.records());
    await before.crash();
    for (const { socket } of [one, two]) {
      const dump = await dumpOf(socket);
      assert.deepEqual(describe(dump.channels.values()), inOldProtocol(state));
      closeDump(dump);
    }
    await using after = await Core.start(names);
    assert.deepEqual(describe(after.table.records()), state);
    for (const { shadow } of [one, two]) {
      await until("each has all again", () => shadow.state.channels.get(name)?.publishers.size === 1);
    }
  }));

Deno.test("RecoverFromSecondaryWhenPrimaryDown: it brings the state back, to a primary that has come back empty too", () =>
  withBalancedFds(async () => {
    const one = shadowOn();
    using two = shadowOn();
    await using before = await Core.start({ primary: one.socket, secondary: two.socket });
    before.publisher(before.channel(name));
    const state = describe(before.table.records());
    one[Symbol.dispose]();
    await before.crash();
    await using between = await Core.start({ primary: one.socket, secondary: two.socket });
    assert.deepEqual(describe(between.table.records()), state);
    await between.crash();
    using again = shadowOn(one.socket);
    await using after = await Core.start({ primary: one.socket, secondary: two.socket });
    assert.deepEqual(describe(after.table.records()), state);
    await until(
      "the new primary has all",
      () => again.shadow.state.channels.get(name)?.publishers.size === 1,
    );
  }));

Deno.test("FreshStartWhenBothShadowsEmpty: a fresh session reaches both", () =>
  withBalancedFds(async () => {
    using one = shadowOn();
    using two = shadowOn();
    await using core = await Core.start({ primary: one.socket, secondary: two.socket });
    assert.equal(core.table.size, 0);
    for (const { shadow } of [one, two]) {
      await until("init has come", () => shadow.state.sessionId === core.table.sessionId);
    }
  }));

// Defects of the reference (section 9.2) on the way from server to server.

Deno.test(
  "9.2, 5: users whose client disconnected do not come back, and a re-used id has its own eventfd",
  withShadow(async (primary) => {
    await using before = await Core.start({ primary });
    const channel = before.channel(name);
    before.publisher(channel);
    const gone = before.subscriber(channel);
    before.table.remove(gone, false);
    const next = before.subscriber(channel, { maxActiveMessages: 2 });
    assert.equal(next.id, gone.id);
    using trigger = next.record.trigger.duplicate();
    await using after = await restarted(before, primary);
    const { subscribers } = after.table.find(name)!;
    assert.equal(subscribers.size, 1);
    assert.equal(subscribers.get(next.id)!.record.info.maxActiveMessages, 2);
    signal(subscribers.get(next.id)!.record.trigger.number);
    assert(drain(trigger.number));
  }),
);

Deno.test(
  "9.2, 7: checksum and metadata sizes and a late type survive",
  withShadow(async (primary) => {
    await using before = await Core.start({ primary });
    const { physical } = before.channel(name);
    before.publisher(physical.channel);
    physical.type = new TextEncoder().encode("late");
    physical.layout = { ...physical.layout, checksumBytes: 20, metadataBytes: 16 };
    before.table.settingsChanged(physical);
    await using after = await restarted(before, primary);
    const recovered = after.table.find(name)!.physical;
    assert.equal(new TextDecoder().decode(recovered.type), "late");
    assert.deepEqual([recovered.layout.checksumBytes, recovered.layout.metadataBytes], [20, 16]);
  }),
);

Deno.test(
  "9.2, 4: the id of a multiplexer stays taken when one of its virtual channels goes",
  withShadow(async (primary) => {
    await using before = await Core.start({ primary });
    const { physical } = before.channel("/mux", {}, true);
    before.publisher(before.table.createVirtualChannel("/v0", physical, 0));
    const leaving = before.publisher(before.table.createVirtualChannel("/v1", physical, 1));
    before.table.remove(leaving, true);
    await using after = await restarted(before, primary);
    assert.deepEqual([...after.table.channels()].map((channel) => channel.name), ["/mux", "/v0"]);
    assert.equal(after.channel("/b").physical.id, 1);
  }),
);

Deno.test(
  "9.2, 20: a shadow that accepts and says nothing keeps a server from serving for a bounded time only",
  withShadow(async (secondary) => {
    await using before = await Core.start({ secondary });
    before.publisher(before.channel(name));
    await before.crash();
    const { listenAbstract } = await import("../../ffi/unix_socket.ts");
    const primary = uniqueSocket("silent");
    using _silent = listenAbstract(primary);
    await using after = await Core.start({ primary, secondary }, { dumpMs: 50 });
    assert.equal(after.table.size, 1);
  }),
);

// Dumps that lie, and memory that is not what it should be.

/** Makes a dump of a few channels and lets a test spoil it. */
async function spoiled(spoil: (dump: StateDump) => void): Promise<StateDump> {
  using kept = shadowOn();
  await using core = await Core.start({ primary: kept.socket });
  const channel = core.channel(name, { queueArenaBytes: 64000 });
  core.publisher(channel, { notifyRetirement: true });
  core.subscriber(channel);
  const { physical } = core.channel("/mux", {}, true);
  core.publisher(core.table.createVirtualChannel("/v0", physical, 0));
  await core.crash();
  const dump = await dumpOf(kept.socket);
  spoil(dump);
  return dump;
}

const channelOf = (dump: StateDump, channel = name): ChannelRecord => dump.channels.get(channel)!;

function poke(fd: ChannelRecord["ccb"], offset: number, value: number): void {
  using memory = Mapping.map(fd, offset + 4);
  memory.view.setUint32(offset, value, true);
}

const spoilers: [string, (dump: StateDump) => void, RegExp][] = [
  ["a control block of another version", (dump) => poke(channelOf(dump).ccb, Ccb.version, 5), /version 5/],
  ["a control block that is too short", (dump) => {
    const record = channelOf(dump);
    record.ccb.close();
    record.ccb = createMemory("short", 100);
  }, /100/],
  ["a control block that shrank", (dump) => {
    const objectName = `subspace_test_${Deno.pid}_shrunk`;
    const record = channelOf(dump);
    record.ccb.close();
    record.ccb = openNamed(objectName, { create: true })!;
    unlinkNamed(objectName);
    truncate(record.ccb, 4096);
  }, /4096/],
  ["a control block that is an eventfd", (dump) => {
    const record = channelOf(dump);
    record.ccb.close();
    record.ccb = systemHost.createEventFd();
  }, /Cannot/],
  ["a control block that may only be read", (dump) => {
    const record = channelOf(dump);
    const number = libc.open(cstring(`/proc/self/fd/${record.ccb.number}`), O_CLOEXEC, 0);
    record.ccb.close();
    record.ccb = Fd.from(number, "shared memory", "open it again");
  }, /EACCES|EPERM/],
  ["a buffer control block that is too short", (dump) => {
    const record = channelOf(dump);
    record.bcb.close();
    record.bcb = createMemory("short", 4096);
  }, /4096/],
  ["a system control block that is too short", (dump) => {
    dump.scb!.close();
    Object.assign(dump, { scb: createMemory("short", 14335) });
  }, /14335|scb|system control block/i],
  ["another number of slots", (dump) => poke(channelOf(dump).ccb, Ccb.numSlots, 3), /3 slots/],
  ["a billion slots", (dump) => channelOf(dump).info.numSlots = 1 << 30, /1073741824 slots/],
  ["a negative number of slots", (dump) => channelOf(dump).info.numSlots = -1, /-1 slots/],
  ["an arena of 2^63 bytes", (dump) => channelOf(dump).info.subscriberQueueArenaSize = 1n << 63n, /arena/],
  ["an arena whose mark is beyond its end", (dump) => {
    const record = channelOf(dump);
    const end = record.ccb.stat().bytes;
    poke(record.ccb, end - 64000 - QueueIndex.paddedBytes + QueueIndex.nextOffset, 64001);
  }, /arena|queue/],
  ["an arena whose block is too small", (dump) => {
    const record = channelOf(dump);
    poke(record.ccb, record.ccb.stat().bytes - 64000, 64);
  }, /arena|queue/],
  ["a queue offset outside the arena", (dump) => {
    const record = channelOf(dump);
    poke(
      record.ccb,
      record.ccb.stat().bytes - 64000 - QueueIndex.paddedBytes + QueueIndex.offsets + 8,
      60000,
    );
  }, /arena|queue/],
  ["two channels with one id", (dump) => channelOf(dump, "/mux").info.channelId = 0, /id=0/],
  ["a channel id out of range", (dump) => channelOf(dump).info.channelId = 1024, /id=1024/],
  ["a negative channel id", (dump) => channelOf(dump).info.channelId = -1, /id=-1/],
  [
    "a virtual channel of another id than its multiplexer",
    (dump) => channelOf(dump, "/v0").info.channelId = 9,
    /\/v0/,
  ],
  [
    "a virtual channel on a channel that is virtual",
    (dump) => channelOf(dump, "/v0").info.mux = "/v0",
    /\/v0/,
  ],
  ["a virtual channel id out of range", (dump) => channelOf(dump, "/v0").info.vchanId = 1023, /\/v0/],
  ["a user id out of range", (dump) => {
    const { publishers } = channelOf(dump);
    publishers.set(1024, publishers.get(0)!);
    publishers.delete(0);
  }, /1024/],
  ["a user id that a virtual channel shares with its multiplexer", (dump) => {
    const { publishers } = channelOf(dump, "/v0");
    const { subscribers } = channelOf(dump);
    channelOf(dump, "/mux").subscribers.set(0, subscribers.get(1)!);
    subscribers.clear();
    assert.equal(publishers.size, 1);
  }, /user id 0/],
  ["a negative slot size", (dump) => channelOf(dump).info.slotSize = -64, /-64/],
  ["a checksum of a megabyte", (dump) => channelOf(dump).info.checksumSize = 1 << 20, /1048576/],
];

for (const [what, spoil, reason] of spoilers) {
  Deno.test(`a dump with ${what} is refused with a reason, and nothing is left of it`, () =>
    withBalancedFds(async () => {
      const dump = await spoiled(spoil);
      assert.throws(() => recover(dump, systemHost).close(), reason);
    }));
}

for (const [what, spoil, reason] of spoilers) {
  const all = /system control block/.test(what);
  Deno.test(`${what}: ${all ? "nothing can be recovered" : "the other channels are recovered"}`, () =>
    withBalancedFds(async () => {
      const dump = await spoiled(spoil), names = [...dump.channels.keys()];
      const failed: string[] = [];
      const skip = (name: string, why: string) => {
        failed.push(name);
        assert.match(why, /Cannot recover|control block|arena|slots|memory/);
      };
      if (all) return void assert.throws(() => recover(dump, systemHost, skip).close(), reason);
      using table = recover(dump, systemHost, skip);
      assert(failed.length > 0 && failed.length < names.length, `failed: ${failed}`);
      for (const name of names) assert(failed.includes(name) || table.find(name) !== undefined, name);
    }));
}

Deno.test("a dump in which nothing is wrong is recovered", () =>
  withBalancedFds(async () => {
    const dump = await spoiled(() => {});
    recover(dump, systemHost).close();
  }));

Deno.test("a recovery that fails leaves the next shadow to be tried", () =>
  withBalancedFds(async () => {
    using one = shadowOn();
    using two = shadowOn();
    await using before = await Core.start({ secondary: two.socket });
    before.publisher(before.channel(name));
    const { sessionId } = before.table;
    await before.crash();
    {
      using liar = await Peer.writing(one.socket, 666n);
      liar.send({ case: "createChannel", value: { channelName: "/lie", numSlots: 1000 } });
      await until("the lie is told", () => one.shadow.state.channels.size === 1);
    }
    await using after = await Core.start({ primary: one.socket, secondary: two.socket });
    assert.equal(after.table.sessionId, sessionId);
    assert.deepEqual([...after.table.channels()].map((channel) => channel.name), [name]);
    await until("the primary knows the truth", () => one.shadow.state.channels.has(name));
  }));

Deno.test("a multiplexer that a dump lacks is made from its first virtual channel", () =>
  withBalancedFds(async () => {
    const dump = await spoiled(({ channels }) => {
      const mux = channels.get("/mux")!;
      for (const fd of [mux.ccb, mux.bcb]) fd.close();
      channels.delete("/mux");
    });
    using table = recover(dump, systemHost);
    const mux = table.find("/mux")!;
    assert(mux.isMultiplexer);
    assert.equal(mux.physical.id, 1);
    assert.deepEqual([...mux.physical.virtualChannels!.values()], [table.find("/v0")]);
  }));

Deno.test("what a dead publisher left in the queue index is cleared, what a live one did is kept", () =>
  withBalancedFds(async () => {
    const hazards: number[] = [];
    for (const pid of [BigInt(Deno.pid), 0x7fff_fffen]) {
      let ccb: ChannelRecord["ccb"] | undefined;
      const dump = await spoiled((dump) => {
        const record = channelOf(dump);
        record.publishers.get(0)!.info.processId = pid;
        poke(
          record.ccb,
          record.ccb.stat().bytes - 64000 - QueueIndex.paddedBytes + QueueIndex.activePublishers,
          2,
        );
        ccb = record.ccb.duplicate();
      });
      using table = recover(dump, systemHost);
      table.reapOrphans();
      using memory = Mapping.map(ccb!, ccb!.stat().bytes);
      const at = ccb!.stat().bytes - 64000 - QueueIndex.paddedBytes + QueueIndex.activePublishers;
      hazards.push(memory.view.getUint32(at, true));
      ccb!.close();
    }
    assert.deepEqual(hazards, [2, 0]);
  }));

for (const onFailure of ["skip", "refuse", "fresh"] as const) {
  Deno.test(
    `--on_recovery_failure=${onFailure}: one bad channel is named, and what was there stays in the shadow`,
    withShadow(async (primary, shadow) => {
      const before = await Core.start({ primary });
      before.publisher(before.channel("/good"));
      before.publisher(before.channel("/bad"));
      await before.crash();
      await until("the shadow has both", () => shadow.state.channels.size === 2);
      shadow.state.channels.get("/bad")!.info.slotSize = -64;
      const starting = Core.start({ primary, onFailure });
      if (onFailure === "refuse") {
        await assert.rejects(
          starting,
          /Cannot recover from primary shadow: .*\/bad: .*-64.*Nothing was changed/,
        );
        assert.equal(shadow.state.channels.size, 2);
        assert.equal(shadow.previous, null);
        return;
      }
      await using after = await starting;
      const expected = onFailure === "skip" ? ["/good"] : [];
      assert.deepEqual([...after.table.channels()].map(({ name }) => name), expected);
      await until("the shadow follows", () => shadow.state.channels.size === expected.length);
      assert.deepEqual([...shadow.previous!.channels.keys()], ["/good", "/bad"]);
      const previous = await dumpOf(`${primary}.previous`);
      assert.equal(previous.channels.size, 2);
      closeDump(previous);
    }),
  );
}
