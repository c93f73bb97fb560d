/** Shadows and servers of different makers: state goes from one server to the next through either's shadow. */

import assert from "node:assert/strict";
import { inspect, isDeepStrictEqual } from "node:util";
import { create } from "@bufbuild/protobuf";
import { drain, signal } from "../../ffi/eventfd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { ClientBufferHandleMetadataProtoSchema } from "../../proto/subspace_pb.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { closeDump, type StateDump } from "../../wire/state_dump.ts";
import { startServer, startShadow } from "../deployment.ts";
import { cppFolder, mayRun, PATIENCE_MS, type Program, uniqueSocket } from "../program.ts";
import { RawClient } from "../raw_client.ts";
import { Core, describe, inOldProtocol } from "../server/core.ts";
import { Peer } from "../shadow/peer.ts";
import { removeTraces } from "../traces.ts";

const ignore = !mayRun || cppFolder === undefined;
if (ignore) {
  console.log("shadow interop: skipped, as SUBSPACE_CPP_BIN does not name a folder or nothing may be run");
}

type Scene = AsyncDisposableStack & { shadow: string };

/** What a shadow tells whoever connects now. */
async function stateOf(shadow: string): Promise<StateDump & Disposable> {
  using peer = new Peer(shadow);
  const dump = await peer.dump();
  return { ...dump, [Symbol.dispose]: () => closeDump(dump) };
}

/** Waits until a shadow says what it should. Theirs may let a reader in before it has read all that a server sent. */
async function untilState(shadow: string, holds: (dump: StateDump) => boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (true) {
    using dump = await stateOf(shadow);
    if (holds(dump)) return;
    if (Date.now() > deadline) assert.fail(`the shadow still has ${inspect(dump)}`);
  }
}

/** Waits until a shadow has all that a server has. */
async function untilMirrored(shadow: string, core: Core): Promise<void> {
  const expected = inOldProtocol(describe(core.table.records()));
  await untilState(shadow, ({ channels }) => isDeepStrictEqual(describe(channels.values()), expected));
}

/** A server of theirs; whatever it leaves behind is removed at the end. */
async function theirServer(scene: Scene, socket: string): Promise<Program> {
  const server = scene.use(await startServer("cpp", socket, [scene.shadow]));
  using client = new RawClient(socket);
  const sessionId = await client.sessionId();
  scene.defer(() => removeTraces(sessionId));
  return server;
}

/** Runs a test with a shadow of either maker. */
function withEither(name: string, run: (scene: Scene) => Promise<void>): void {
  for (const maker of ["cpp", "ours"] as const) {
    Deno.test({
      name: `${name} (${maker === "cpp" ? "their" : "our"} shadow)`,
      ignore,
      fn: async () => {
        const shadow = uniqueSocket("shadow");
        await using scene = Object.assign(new AsyncDisposableStack(), { shadow });
        if (maker === "cpp") scene.use(await startShadow("cpp", shadow));
        else scene.use(Shadow.start({ socket: shadow }));
        await run(scene);
      },
    });
  }
}

/** Everything that a channel can have. */
function furnish(core: Core): void {
  const plain = core.channel("/plain", {
    numSlots: 10,
    slotBytes: 128,
    type: "T",
    checksumBytes: 20,
    metadataBytes: 16,
  });
  core.publisher(plain, {
    isReliable: true,
    notifyRetirement: true,
    maxOutstandingSlotLeases: 3,
    isFixedSize: true,
  });
  core.subscriber(plain, { isReliable: true, maxActiveMessages: 2 });
  core.table.settingsChanged(plain.physical);
  core.subscriber(core.channel("/placeholder", { numSlots: 0, slotBytes: 0 }));
  const queued = core.channel("/queued", { numSlots: 16, queueArenaBytes: 64000 });
  core.publisher(queued);
  core.subscriber(queued, { subscriberQueueSize: 4 });
  const { physical } = core.channel("/mux", { numSlots: 8 }, true);
  core.publisher(core.table.createVirtualChannel("/v0", physical, 0));
  core.publisher(core.table.createVirtualChannel("/v7", physical, 7));
  core.subscriber(physical.channel);
  core.subscriber(core.table.find("/v7")!);
  const split = core.channel("/split");
  core.publisher(split);
  split.physical.splitBuffers = { useSplitBuffers: true, splitBuffersOverBridge: false };
  core.table.replicateOptions(split.physical);
  for (let slotId = 0; slotId < 4; slotId++) {
    const metadata = create(ClientBufferHandleMetadataProtoSchema, {
      channelName: "/split",
      sessionId: core.table.sessionId,
      slotId,
      fullSize: 256n,
    });
    core.table.registerBuffer(split.physical, {
      metadata,
      fd: slotId === 0 ? createMemory("slot", 4096) : null,
    });
  }
}

/** Names, ids, users and memory: what no server may change. */
function summary(core: Core): unknown[][] {
  return [...core.table.records()]
    .filter(({ info }) => !info.channelName.startsWith("/subspace/"))
    .map(({ info, ccb, bcb, publishers, subscribers, clientBuffers }) => [
      info.channelName,
      info.channelId,
      info.numSlots,
      info.mux,
      info.vchanId,
      ccb.stat().inode,
      bcb.stat().inode,
      [...publishers.values()].map(({ info }) => info).sort((a, b) => a.publisherId - b.publisherId),
      [...subscribers.values()].map(({ info }) => info).sort((a, b) => a.subscriberId - b.subscriberId),
      clientBuffers.size,
    ])
    .sort(([a], [b]) => String(a) < String(b) ? -1 : 1);
}

withEither("a shadow holds exactly what our server has, and forgets what goes", async ({ shadow }) => {
  await using core = await Core.start({ primary: shadow });
  furnish(core);
  const leaving = [core.publisher(core.channel("/gone")), core.subscriber(core.table.find("/plain")!)];
  await untilMirrored(shadow, core);
  for (const user of leaving) core.table.remove(user, true);
  await untilMirrored(shadow, core);
  using dump = await stateOf(shadow);
  assert.equal(dump.sessionId, core.table.sessionId);
  assert(!dump.channels.has("/gone"));
});

withEither(
  "a server that forgets at its end leaves no channels there, and the next one begins anew",
  async ({ shadow }) => {
    await using before = await Core.start({ primary: shadow });
    furnish(before);
    await untilMirrored(shadow, before);
    before.table.announceEnd();
    await untilState(shadow, ({ channels }) => channels.size === 0);
    await before.crash();
    await using after = await Core.start({ primary: shadow });
    assert.notEqual(after.table.sessionId, before.table.sessionId);
  },
);

withEither("a re-used user id has its own fds and traits there (9.2, 5)", async ({ shadow }) => {
  await using core = await Core.start({ primary: shadow });
  const channel = core.channel("/a");
  core.publisher(channel);
  core.table.remove(core.subscriber(channel, { maxActiveMessages: 1 }), false);
  const next = core.subscriber(channel, { maxActiveMessages: 2 });
  await untilMirrored(shadow, core);
  using dump = await stateOf(shadow);
  const { poll } = dump.channels.get("/a")!.subscribers.get(next.id)!;
  drain(poll.number);
  signal(next.record.trigger.number);
  assert(drain(poll.number));
});

withEither("our server recovers what our server left", async ({ shadow }) => {
  await using before = await Core.start({ primary: shadow });
  furnish(before);
  const state = describe(before.table.records());
  await untilMirrored(shadow, before);
  await before.crash();
  await using after = await Core.start({ primary: shadow });
  assert.equal(after.table.sessionId, before.table.sessionId);
  assert.deepEqual(inOldProtocol(describe(after.table.records())), inOldProtocol(state));
});

withEither("their server recovers what our server left, and ours what theirs left then", async (scene) => {
  const { shadow } = scene;
  await using before = await Core.start({ primary: shadow });
  furnish(before);
  const { sessionId } = before.table;
  const ours = summary(before);
  await untilMirrored(shadow, before);
  await before.crash();

  const socket = uniqueSocket("server");
  const server = await theirServer(scene, socket);
  await server.line(new RegExp(`Recovered 7 channels from primary shadow \\(session_id=${sessionId}\\)`));
  await server.line(/Recovered channel '\/plain' \(id=0, 1 pubs, 1 subs\)/);
  await server.line(/Recovered channel '\/placeholder' \(id=1, 0 pubs, 1 subs\)/);
  await server.line(/Recovered virtual channel '\/v7' on mux '\/mux' \(1 pubs, 1 subs\)/);
  {
    using client = new RawClient(socket);
    assert.equal(await client.sessionId(), sessionId);
    const response = await client.ask({ case: "getChannelInfo", value: { channelName: "/plain" } });
    assert(response.case === "getChannelInfo");
    const [info] = response.value.channels;
    assert.deepEqual([info.numSlots, info.numPubs, info.numSubs, info.channelId], [10, 1, 1, 0]);
    // An orphan is reclaimed by its id, and a new user gets one that is free.
    assert.equal(await client.subscriber("/plain", { subscriberId: 1, maxActiveMessages: 2 }), 1);
    assert.equal(await client.subscriber("/queued", { subscriberQueueSize: 4 }), 2);
  }
  await untilState(shadow, ({ channels }) => channels.get("/subspace/Statistics")?.publishers.size === 1);
  await server.kill();

  await using after = await Core.start({ primary: shadow });
  assert.equal(after.table.sessionId, sessionId);
  // Their server tells no shadow that a client has gone (9.2, 5): the two users of the client above are ghosts.
  const queued = after.table.find("/queued")!;
  after.table.remove(queued.subscribers.get(2)!, true);
  assert.deepEqual(inOldProtocol(summary(after)), inOldProtocol(ours));
});

withEither("our server recovers what their server and its clients left", async (scene) => {
  const socket = uniqueSocket("server");
  const server = await theirServer(scene, socket);
  using client = new RawClient(socket);
  const sessionId = await client.sessionId();
  await client.subscriber("/late");
  await client.publisher("/late", {
    notifyRetirement: true,
    numSlots: 10,
    checksumSize: 20,
    metadataSize: 16,
  });
  await client.subscriber("/placeholder");
  await client.publisher("/queued", { numSlots: 16, subscriberQueueArenaSize: 64000n, maxPublishers: 3 });
  await client.subscriber("/queued", { subscriberQueueSize: 4 });
  for (const name of ["/v0", "/v1"]) await client.publisher(name, { mux: "/mux", numSlots: 8 });
  await client.subscriber("/mux");
  await client.publisher("/split", { useSplitBuffers: true });
  using prefix = createMemory("prefix", 4096);
  await client.register("/split", { sessionId, slotId: 0, isPrefix: true }, prefix);
  for (let slotId = 0; slotId < 4; slotId++) {
    await client.register("/split", { sessionId, slotId, isPrefix: false });
  }
  await untilState(scene.shadow, ({ channels }) => channels.get("/split")?.clientBuffers.size === 5);
  await server.kill();

  await using core = await Core.start({ primary: scene.shadow });
  assert.equal(core.table.sessionId, sessionId);
  const users = Object.fromEntries(
    [...core.table.channels()].map((
      channel,
    ) => [channel.name, [channel.publishers.size, channel.subscribers.size]]),
  );
  assert.deepEqual(users, {
    "/subspace/ChannelDirectory": [1, 0],
    "/subspace/Statistics": [1, 0],
    "/late": [1, 1],
    "/placeholder": [0, 1],
    "/queued": [1, 1],
    "/mux": [0, 1],
    "/v0": [1, 0],
    "/v1": [1, 0],
    "/split": [1, 0],
  });
  const late = core.table.find("/late")!.physical, queued = core.table.find("/queued")!.physical;
  assert.deepEqual([late.layout.numSlots, late.counters.numPubs, late.counters.numSubs], [10, 1, 1]);
  assert.deepEqual([late.blocks.hasSubscriber(0), late.blocks.numSubscribers()], [true, 1]);
  assert.deepEqual([queued.queueArenaBytes, queued.maxPublishers], [64000, 3]);
  assert(core.table.find("/mux")!.isMultiplexer);
  assert.equal(
    core.table.find("/split")!.physical.clientBuffers.get(`${sessionId}/0/prefix`)!.fd!.stat().bytes,
    4096,
  );
});

Deno.test({
  name: "with one shadow of each maker, either one brings our state back",
  ignore,
  fn: async () => {
    for (const lost of ["primary", "secondary"] as const) {
      const names = { primary: uniqueSocket("theirs"), secondary: uniqueSocket("ours") };
      await using theirs = await startShadow("cpp", names.primary);
      using ours = Shadow.start({ socket: names.secondary });
      await using before = await Core.start(names);
      furnish(before);
      const state = describe(before.table.records());
      for (const shadow of Object.values(names)) await untilMirrored(shadow, before);
      await before.crash();
      if (lost === "primary") await theirs.kill();
      else ours.stop();
      await using after = await Core.start(names);
      assert.deepEqual(inOldProtocol(describe(after.table.records())), inOldProtocol(state));
    }
  },
});

Deno.test({
  name: "their shadow that is stopped makes our server wait for nothing (9.2, 20)",
  ignore,
  fn: async () => {
    const shadow = uniqueSocket("stopped");
    await using program = await startShadow("cpp", shadow);
    await using core = await Core.start({ primary: shadow });
    program.signal("SIGSTOP");
    for (let i = 0; i < 500; i++) core.publisher(core.channel(`/${i}`));
    assert.equal(core.table.size, 500);
    program.signal("SIGCONT");
    await untilMirrored(shadow, core);
  },
});
