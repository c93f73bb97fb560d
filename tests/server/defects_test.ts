/** The defects of the reference's server (specification, section 9.2, with their numbers there), which ours has not. */

import assert from "node:assert/strict";
import { systemHost } from "../../server/host.ts";
import { Server, type ServerOptions } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { until } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { RawClient } from "./raw_client.ts";
import { channelOf, DEAD_PID, recordEvents, test, wasTriggered } from "./running_server.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const isGone = (server: Server, n: number) => until("the client is gone", () => server.numClients === n);

test("9.2.1: claiming the id of a publisher that left makes a new one", async ({ server, connect }) => {
  const stays = await connect(), leaves = await connect(), comes = await connect();
  await stays.createPublisher("c", { numSlots: 16 });
  const { publisherId } = await leaves.createPublisher("c", { numSlots: 16 });
  leaves.close();
  await isGone(server, 2);
  const claimed = await comes.createPublisher("c", { numSlots: 16, publisherId });
  assert.equal(claimed.error, "");
  assert.equal(claimed.publisherId, publisherId);
});

test("9.2.2: claiming the id of a subscriber that left is refused", async ({ server, connect }) => {
  const stays = await connect(), leaves = await connect();
  await stays.createPublisher("c", { numSlots: 16 });
  const { subscriberId } = await leaves.createSubscriber("c");
  leaves.close();
  await isGone(server, 1);
  const { error } = await stays.createSubscriber("c", { subscriberId });
  assert.equal(error, "INTERNAL: Invalid user id");
});

test("9.2.3: buffers are registered on a channel that somebody has left", async ({ server, connect }) => {
  const stays = await connect(), leaves = await connect(), other = await connect();
  await stays.createPublisher("c", { numSlots: 16, useSplitBuffers: true });
  await leaves.createPublisher("c", { numSlots: 16, useSplitBuffers: true });
  await leaves.createSubscriber("c");
  leaves.close();
  await isGone(server, 2);
  const register = (client: RawClient) => {
    const metadata = { channelName: "c", sessionId: server.sessionId };
    return client.request("registerClientBuffer", { case: "registerClientBuffer", value: { metadata } });
  };
  assert.equal((await register(stays)).error, "");
  assert.match((await register(other)).error, /does not own a publisher/);
});

test("9.2.4: a multiplexer keeps its id when a virtual channel goes", async ({ connect }) => {
  const client = await connect();
  const v1 = await client.createPublisher("v1", { mux: "/m", numSlots: 16 });
  const v2 = await client.createPublisher("v2", { mux: "/m", numSlots: 16 });
  await client.removePublisher("v1", v1.publisherId);
  const other = await client.createPublisher("other");
  assert.equal(v1.channelId, v2.channelId);
  assert.notEqual(other.channelId, v2.channelId);
});

test("9.2.4: the last virtual channel takes its multiplexer with it, and the id is free once", async ({ connect }) => {
  const client = await connect();
  const v = await client.createPublisher("v", { mux: "/m" });
  await client.removePublisher("v", v.publisherId);
  assert.match((await client.getChannelInfo("/m")).error, /No such channel/);
  const [a, b] = [await client.createPublisher("a"), await client.createPublisher("b")];
  assert.equal(a.channelId, v.channelId);
  assert.equal(b.channelId, v.channelId + 1);
});

test("9.2.5: shadows hear of users whose client leaves", async ({ server, connect }) => {
  const stays = await connect(), leaves = await connect();
  await stays.createPublisher("c", { numSlots: 16 });
  await leaves.createPublisher("c", { numSlots: 16 });
  await leaves.createSubscriber("c");
  await leaves.createSubscriber("own");
  const events = recordEvents(server.table);
  leaves.close();
  await isGone(server, 1);
  assert.deepEqual(events, [
    "remove_publisher c 1",
    "remove_subscriber c 2",
    "remove_subscriber own 0",
    "remove_channel own 3",
  ]);
});

type Connect = () => Promise<RawClient>;

/** A server that ends, leaving its state to a shadow, and the one that goes on with it. Clients of the first stay. */
function twoLives(
  name: string,
  before: (server: Server, connect: Connect) => Promise<void>,
  after: (server: Server, connect: Connect) => Promise<void>,
  options: ServerOptions = {},
): void {
  Deno.test(name, () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
      using clients = new DisposableStack();
      const connect = async () => clients.use(await RawClient.connect(socket));
      const shadow = Shadow.start({ socket: shadowSocket });
      const first = await Server.start({ socket, shadowSocket });
      await before(first, connect);
      await first.stop();
      const second = await Server.start({ socket, shadowSocket, ...options });
      try {
        assert.equal(second.sessionId, first.sessionId);
        await after(second, connect);
      } finally {
        // Without a shadow the last server cleans up.
        shadow.stop();
        await until("the shadow is gone", () => !second.keepsState);
        await second.stop();
      }
    }));
}

twoLives(
  "9.2.6: orphans whose process is dead go, with all that they held",
  async (_, connect) => {
    const client = await connect();
    await client.createPublisher("c", { processId: BigInt(Deno.pid) });
    await client.createSubscriber("c", { processId: BigInt(Deno.pid) });
    await client.createSubscriber("of nobody we know", { processId: 0n });
  },
  async (server, connect) => {
    const client = await connect();
    assert.match((await client.getChannelInfo("c")).error, /No such channel/);
    assert.deepEqual(Array.from(server.table.channels(), ({ name }) => name), [
      "/subspace/ChannelDirectory",
      "/subspace/Statistics",
      "of nobody we know",
    ]);
  },
  { host: { ...systemHost, processStart: () => null } },
);

twoLives(
  "9.2.6: the server's own channels have one publisher, however often it starts",
  () => Promise.resolve(),
  (server) => {
    for (const name of ["/subspace/ChannelDirectory", "/subspace/Statistics"]) {
      const { publishers } = channelOf(server, name);
      assert.deepEqual([...publishers.values()].map(({ id, client }) => [id, client !== null]), [[0, true]]);
    }
    return Promise.resolve();
  },
);

twoLives(
  "9.2.7: sizes of checksum and metadata, and a type named late, survive a recovery",
  async (_, connect) => {
    const client = await connect();
    await client.createPublisher("c", { numSlots: 16, checksumSize: 20, metadataSize: 16 });
    await client.createSubscriber("c", { type: bytes("late") });
  },
  async (_, connect) => {
    const { checksumSize, metadataSize, type } = await (await connect()).createSubscriber("c");
    assert.deepEqual([checksumSize, metadataSize, type], [20, 16, bytes("late")]);
  },
);

test("9.2.8: nobody removes what belongs to another client, or by the wrong kind", async ({ server, connect }) => {
  const owner = await connect(), other = await connect();
  const { publisherId } = await owner.createPublisher("c", { numSlots: 16 });
  const { subscriberId } = await owner.createSubscriber("c");
  assert.match(
    (await other.removePublisher("c", publisherId)).error,
    /^PERMISSION_DENIED: publisher 0 on channel c/,
  );
  assert.match((await other.removeSubscriber("c", subscriberId)).error, /^PERMISSION_DENIED: subscriber 1/);
  assert.equal((await owner.removePublisher("c", subscriberId)).error, "");
  assert.equal((await owner.removeSubscriber("c", publisherId)).error, "");
  const { publishers, subscribers } = channelOf(server, "c");
  assert.deepEqual([publishers.size, subscribers.size], [1, 1]);
});

test("9.2.8: nobody claims the subscriber of another client", async ({ connect }) => {
  const owner = await connect(), other = await connect();
  const { subscriberId } = await owner.createSubscriber("c");
  assert.equal((await other.createSubscriber("c", { subscriberId })).error, "INTERNAL: Invalid user id");
});

test("9.2.9: a refused publisher leaves nothing behind", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("known", { numSlots: 16, checksumSize: 20 });
  const before = [...server.table.channels()].map(({ name, physical }) => [name, physical.userIds.size]);
  const events = recordEvents(server.table);
  for (
    const traits of [
      { checksumSize: 0x10000 },
      { metadataSize: 0x10000 },
      { maxPublishers: -1 },
      { mux: "/m", notifyRetirement: true },
      { mux: "/m", vchanId: 1023 },
      { numSlots: 1 },
    ]
  ) assert.notEqual((await client.createPublisher("new", traits)).error, "");
  assert.notEqual((await client.createPublisher("known", { numSlots: 16, checksumSize: 8 })).error, "");
  assert.notEqual((await client.createSubscriber("new", { subscriberId: 5 })).error, "");
  assert.notEqual((await client.createSubscriber("new", { maxSubscribers: -1 })).error, "");
  assert.deepEqual(events, []);
  assert.deepEqual(
    [...server.table.channels()].map(({ name, physical }) => [name, physical.userIds.size]),
    before,
  );
});

test("9.2.9: a publisher refused on a placeholder leaves it a placeholder", async ({ server, connect }) => {
  const client = await connect();
  await client.createSubscriber("c", { maxActiveMessages: 10 });
  assert.match((await client.createPublisher("c", { type: bytes("T") })).error, /Insufficient capacity/);
  const { physical } = channelOf(server, "c");
  assert.deepEqual([physical.isPlaceholder, physical.type.length, physical.maxPublishers], [true, 0, null]);
});

test("9.2.10: default sizes of checksum and metadata are as final as any", async ({ connect }) => {
  const client = await connect();
  await client.createPublisher("c", { numSlots: 16 });
  assert.equal(
    (await client.createPublisher("c", { numSlots: 16, checksumSize: 20 })).error,
    "Inconsistent checksum_size for channel c: already 4, not 20",
  );
  assert.equal(
    (await client.createPublisher("c", { numSlots: 16, metadataSize: 16 })).error,
    "Inconsistent metadata_size for channel c: already 0, not 16",
  );
});

twoLives(
  "9.2.11: after a recovery the counters say what is there",
  async (server, connect) => {
    const client = await connect();
    await client.createPublisher("c", { numSlots: 16, isReliable: true });
    await client.createSubscriber("c", { isReliable: true });
    // As after a death in the middle of a change.
    channelOf(server, "c").physical.counters.restate(7, 7, 7, 7);
  },
  (server) => {
    const { numPubs, numReliablePubs, numSubs, numReliableSubs } = channelOf(server, "c").physical.counters;
    assert.deepEqual([numPubs, numReliablePubs, numSubs, numReliableSubs], [1, 1, 1, 1]);
    return Promise.resolve();
  },
);

test("9.2.12: an id that was given to somebody else is not the old owner's any more", async ({ server, connect }) => {
  const first = await connect(), second = await connect();
  await second.createSubscriber("c");
  const { subscriberId } = await first.createSubscriber("c");
  await first.removeSubscriber("c", subscriberId);
  assert.equal((await second.createSubscriber("c")).subscriberId, subscriberId);
  assert.match((await first.removeSubscriber("c", subscriberId)).error, /PERMISSION_DENIED/);
  assert.equal(channelOf(server, "c").subscribers.size, 2);
});

test("9.2.13: channels whose buffers would share files cannot both be", async ({ connect }) => {
  const client = await connect();
  const { publisherId } = await client.createPublisher("/a/b");
  assert.match(
    (await client.createPublisher("/a.b")).error,
    /^INTERNAL: Cannot create channel \/a\.b: .*\/a\/b/,
  );
  assert.match((await client.createSubscriber("v", { mux: ".a.b" })).error, /Cannot create channel \.a\.b/);
  await client.removePublisher("/a/b", publisherId);
  assert.equal((await client.createPublisher("/a.b")).error, "");
});

test("9.2.14: a process id that means nothing here is shown, and never relied on", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("c", { numSlots: 16, processId: DEAD_PID });
  const { channels: [{ participants: [participant] }] } = await client.getChannelInfo("c");
  assert.equal(participant.pid, DEAD_PID);
  const [record] = [...server.table.records()].filter(({ info }) => info.channelName === "c");
  assert.equal(record.publishers.get(0)!.info.processId, 0n);
});

test("5.13: a publisher that waits for a subscriber is woken when the subscriber goes", async ({ connect }) => {
  const client = await connect(), reader = await connect();
  await client.createPublisher("c", { numSlots: 16, isReliable: true });
  using trigger = client.fds[3].duplicate();
  const { subscriberId } = await reader.createSubscriber("c", { isReliable: true });
  assert.equal(wasTriggered(trigger.number), false);
  await reader.removeSubscriber("c", subscriberId);
  assert.equal(wasTriggered(trigger.number), true);
});
