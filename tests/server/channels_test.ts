/** What becomes of channels, their memory and their users, as clients come and go. */

import assert from "node:assert/strict";
import { systemHost } from "../../server/host.ts";
import { Server } from "../../server/server.ts";
import { Ccb, decodeRefs, QueueIndex, Slot } from "../../shm/layout.ts";
import { bufferName, splitPath } from "../../shm/buffer_names.ts";
import { PublishingEnd } from "../../shm/publishing.ts";
import { ReadingEnd } from "../../shm/reading.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { readInt32 } from "../../ffi/pipe.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { until } from "../deployment.ts";
import { openFds, withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { RawClient } from "./raw_client.ts";
import { channelOf, recordEvents, sharedMemoryExists, test, wasTriggered } from "./running_server.ts";

/** Both ends of a channel of a server in this process. */
function ends(server: Server, name: string, publisherId: number, subscriberId: number) {
  const { physical, vchanId } = channelOf(server, name);
  const common = {
    sessionId: server.sessionId,
    resolvedName: physical.name,
    blocks: physical.blocks,
    vchanId,
  };
  return {
    publisher: new PublishingEnd({ ...common, id: publisherId, slotBytes: 64 }),
    subscriber: new ReadingEnd({ ...common, id: subscriberId }),
  };
}

const send = (publisher: PublishingEnd, text: string) => {
  publisher.buffer()!.set(new TextEncoder().encode(text));
  return publisher.publish(text.length);
};

test("the counters of a channel follow its users, and are zero when it is gone", async ({ server, connect }) => {
  const client = await connect();
  const counts = () => {
    const counters = server.table.systemBlock.counters(2);
    const { numPubUpdates, numSubUpdates, numPubs, numReliablePubs, numSubs, numReliableSubs } = counters;
    return [numPubUpdates, numSubUpdates, numPubs, numReliablePubs, numSubs, numReliableSubs];
  };
  await client.createPublisher("c", { numSlots: 16, isReliable: true });
  await client.createPublisher("c", { numSlots: 16 });
  const { numPubUpdates } = await client.createSubscriber("c", { isReliable: true });
  assert.equal(numPubUpdates, 2);
  assert.deepEqual(counts(), [2, 1, 2, 1, 1, 1]);
  await client.removePublisher("c", 0);
  await client.removeSubscriber("c", 2);
  assert.deepEqual(counts(), [3, 2, 1, 0, 0, 0]);
  await client.removePublisher("c", 1);
  assert.deepEqual(counts(), [0, 0, 0, 0, 0, 0]);
});

test("memory that a client gets is what the channel's users see", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("/a/channel", { numSlots: 16 });
  using ccb = Mapping.map(client.fds[0], Ccb.slots);
  assert.equal(new TextDecoder().decode(ccb.bytes.slice(0, 10)), "/a/channel");
  assert.equal(ccb.view.getInt32(Ccb.numSlots, true), 16);
  await client.createSubscriber("/a/channel");
  assert.equal(ccb.view.getInt32(Ccb.numSubs, true), 1);
  const { physical } = channelOf(server, "/a/channel");
  assert.equal(client.fds[0].stat().inode, physical.blocks.ccbFd.stat().inode);
});

test("poll and trigger fd of a user are the same eventfd", async ({ connect }) => {
  const client = await connect();
  await client.createPublisher("c", { numSlots: 16 });
  const { publisherId } = await client.createPublisher("c", { numSlots: 16 });
  await client.createSubscriber("c");
  using trigger = client.fds[2].duplicate();
  using poll = client.fds[3].duplicate();
  await client.removePublisher("c", publisherId);
  assert.equal(wasTriggered(poll.number), true, "subscribers are told that a publisher went");
  assert.equal(wasTriggered(trigger.number), false);
});

test("a placeholder gets its memory with the first publisher, and its subscribers move over", async ({ server, connect }) => {
  const client = await connect();
  const before = await client.createSubscriber("c", { subscriberQueueSize: 8 });
  const placeholder = client.fds[0].stat().inode;
  assert.deepEqual([before.numSlots, before.slotSize, before.subscriberQueueSize], [0, 0, 0]);
  const { publisherId, channelId } = await client.createPublisher("c", {
    numSlots: 8,
    subscriberQueueArenaSize: 8000n,
  });
  assert.equal(channelId, before.channelId);
  const { publisher, subscriber } = ends(server, "c", publisherId, before.subscriberId);
  send(publisher, "hello");
  assert(subscriber.readNext());
  subscriber.release(subscriber.slotId);
  const after = await client.createSubscriber("c", {
    subscriberId: before.subscriberId,
    subscriberQueueSize: 8,
  });
  assert.notEqual(client.fds[0].stat().inode, placeholder);
  assert.deepEqual([after.numSlots, after.slotSize, after.subscriberQueueSize], [8, 64, 8]);
  assert.equal(after.defaultSubscriberQueueSize, 16);
  publisher.close();
  subscriber[Symbol.dispose]();
});

test("all virtual channels move when their multiplexer gets its memory, in the shadow too", async ({ server, connect }) => {
  const client = await connect();
  await client.createSubscriber("v1", { mux: "/m" });
  await client.createSubscriber("v2", { mux: "/m" });
  const events = recordEvents(server.table);
  const { publisherId } = await client.createPublisher("v1", { mux: "/m", numSlots: 16 });
  assert.deepEqual(events, [
    "create_channel /m 2",
    "create_channel v1 2",
    "create_channel v2 2",
    "update_channel_options /m",
    `add_publisher v1 ${publisherId}`,
  ]);
  const records = [...server.table.records()].filter(({ info }) => info.channelId === 2);
  assert.deepEqual(records.map(({ info }) => [info.channelName, info.mux, info.vchanId, info.numSlots]), [
    ["/m", "", 0, 16],
    ["v1", "/m", 0, 16],
    ["v2", "/m", 1, 16],
  ]);
});

test("a subscriber that reloads need not repeat its options", async ({ server, connect }) => {
  const client = await connect();
  const { subscriberId } = await client.createSubscriber("v", {
    mux: "/m",
    vchanId: 3,
    isReliable: true,
    maxActiveMessages: 5,
    maxSubscribers: 2,
  });
  await client.createPublisher("v", { mux: "/m", vchanId: 3, numSlots: 16 });
  const events = recordEvents(server.table);
  // What a Rust client says: the options are what protobuf makes of nothing.
  const value = { channelName: "v", subscriberId, mux: "/m", processId: BigInt(Deno.pid) };
  const reloaded = await client.request("createSubscriber", { case: "createSubscriber", value });
  assert.deepEqual([reloaded.error, reloaded.subscriberId, reloaded.vchanId, reloaded.numSlots], [
    "",
    subscriberId,
    3,
    16,
  ]);
  const { info } = channelOf(server, "v").subscribers.get(subscriberId)!.record;
  assert.deepEqual([info.isReliable, info.maxActiveMessages], [true, 5]);
  assert.deepEqual(events, []);
});

test("a subscriber of a multiplexer gets the messages of all its virtual channels", async ({ server, connect }) => {
  const client = await connect();
  const v1 = await client.createPublisher("v1", { mux: "/m", numSlots: 16 });
  const v2 = await client.createPublisher("v2", { mux: "/m", numSlots: 16 });
  const { subscriberId } = await client.createSubscriber("/m", { maxActiveMessages: 4 });
  const first = ends(server, "v1", v1.publisherId, subscriberId);
  const second = ends(server, "v2", v2.publisherId, subscriberId);
  const { physical } = channelOf(server, "/m");
  using reader = new ReadingEnd({
    sessionId: server.sessionId,
    resolvedName: "/m",
    blocks: physical.blocks,
    id: subscriberId,
  });
  send(first.publisher, "one");
  send(second.publisher, "two");
  const read = () => {
    assert(reader.readNext());
    const text = new TextDecoder().decode(reader.payload);
    reader.release(reader.slotId);
    return text;
  };
  assert.deepEqual([read(), read()], ["one", "two"]);
  for (const { publisher, subscriber } of [first, second]) {
    publisher.close();
    subscriber[Symbol.dispose]();
  }
});

test("reliable publishers of all virtual channels are triggers of a multiplexer's subscriber", async ({ connect }) => {
  const client = await connect();
  await client.createPublisher("v1", { mux: "/m", numSlots: 16, isReliable: true });
  await client.createPublisher("v2", { mux: "/m", numSlots: 16, isReliable: true });
  const { reliablePubTriggerFdIndexes } = await client.createSubscriber("/m");
  assert.equal(reliablePubTriggerFdIndexes.length, 2);
});

test("the capacity error of a virtual channel names the users of the whole multiplexer", async ({ connect }) => {
  const client = await connect("the holder");
  await client.createPublisher("v1", { mux: "/m", processId: 7n });
  await client.createSubscriber("v2", { mux: "/m", maxActiveMessages: 2, processId: 8n });
  const { error } = await client.createPublisher("v2", { mux: "/m" });
  assert.equal(
    error,
    "Insufficient capacity to add a new publisher to channel v2: INTERNAL: there are 4 slots with 1 publisher " +
      "reserving 2 slot leases and 1 subscriber reserving 2 active messages; you need at least 5 slots; " +
      'publishers=[{pid=7, client="the holder", max_outstanding_slot_leases=1}]; ' +
      'subscribers=[{pid=8, client="the holder", max_active_messages=2}]',
  );
});

test("a client that leaves gives back slots, references and queue", async ({ server, connect }) => {
  const stays = await connect(), leaves = await connect();
  await stays.createPublisher("c", { numSlots: 4, subscriberQueueArenaSize: 8000n });
  const { publisherId } = await leaves.createPublisher("c", { numSlots: 4, subscriberQueueArenaSize: 8000n });
  const { subscriberId } = await leaves.createSubscriber("c");
  const { publisher, subscriber } = ends(server, "c", publisherId, subscriberId);
  send(publisher, "held");
  assert(subscriber.readNext());
  const { blocks } = channelOf(server, "c").physical;
  using ccb = Mapping.map(blocks.ccbFd, blocks.bytes);
  const refs = () =>
    Array.from({ length: 4 }, (_, slot) => ccb.view.getBigUint64(Ccb.slots + 184 * slot, true));
  const held = (word: bigint) => (word >> 63n) !== 0n || (word & 0xfffffn) !== 0n;
  assert.equal(refs().filter(held).length, 2, "one slot is the publisher's, one is held by the subscriber");
  leaves.close();
  await until("the client is gone", () => server.numClients === 1);
  assert.deepEqual(refs().filter(held), []);
  assert.equal(blocks.hasSubscriber(subscriberId), false);
  const queueIndex = blocks.bytes - 8000 - QueueIndex.paddedBytes;
  assert.equal(
    ccb.view.getBigUint64(queueIndex + QueueIndex.offsets + 8 * subscriberId, true),
    2n ** 64n - 1n,
  );
  publisher.close();
  subscriber[Symbol.dispose]();
});

test("publishers that want to know hear of slots that a leaving subscriber retired", async ({ server, connect }) => {
  const client = await connect(), reader = await connect();
  const { publisherId, retirementFdIndex, retirementFdIndexes } = await client.createPublisher("c", {
    numSlots: 8,
    notifyRetirement: true,
  });
  assert.deepEqual([retirementFdIndex, retirementFdIndexes], [4, [5]]);
  using pipe = client.fds[retirementFdIndex].duplicate();
  const gone = await reader.createSubscriber("c");
  const stays = await client.createSubscriber("c");
  const { publisher, subscriber } = ends(server, "c", publisherId, gone.subscriberId);
  const { subscriber: other, publisher: _unused } = ends(server, "c", publisherId, stays.subscriberId);
  send(publisher, "message");
  assert(subscriber.readNext());
  assert(other.readNext());
  other.release(other.slotId);
  assert.equal(readInt32(pipe.number), null, "one reader still holds it");
  await reader.removeSubscriber("c", gone.subscriberId);
  assert.equal(readInt32(pipe.number), 0);
  assert.equal(readInt32(pipe.number), null);
  for (const end of [publisher, _unused]) end.close();
  for (const end of [subscriber, other]) end[Symbol.dispose]();
});

test("queues are given back and used again", async ({ connect }) => {
  const client = await connect();
  await client.createPublisher("c", { numSlots: 16, subscriberQueueArenaSize: 640n });
  const { subscriberId } = await client.createSubscriber("c");
  assert.match((await client.createSubscriber("c")).error, /^RESOURCE_EXHAUSTED: .*0 of 640 bytes remain/);
  await client.removeSubscriber("c", subscriberId);
  for (let i = 0; i < 20; i++) {
    const next = await client.createSubscriber("c");
    assert.deepEqual([next.error, next.subscriberId, next.subscriberQueueSize], ["", subscriberId, 16]);
    await client.removeSubscriber("c", subscriberId);
  }
});

test("the id of a publisher that died among the queues is free when its process is gone", async ({ server, connect }) => {
  const client = await connect(), leaves = await connect();
  const traits = { numSlots: 16, subscriberQueueArenaSize: 8000n };
  await client.createPublisher("c", traits);
  const { publisherId } = await leaves.createPublisher("c", traits);
  const { registry } = channelOf(server, "c").physical;
  registry.setHazard(publisherId, 1);
  leaves.close();
  await until("the client is gone", () => server.numClients === 1);
  const next = await client.createPublisher("c", traits);
  assert.notEqual(next.publisherId, publisherId, "its process lives: it may still be writing");
  server.table.sweep();
  assert.equal(registry.hazard(publisherId), 1);
  registry.setHazard(publisherId, 0);
  server.table.sweep();
  assert.equal((await client.createPublisher("c", traits)).publisherId, publisherId);
});

test("a reference that a subscriber left when it died is freed, and those of the living are not", async ({ server, connect }) => {
  const client = await connect(), dies = await connect();
  const { publisherId } = await client.createPublisher("c", { numSlots: 8 });
  const { subscriberId } = await client.createSubscriber("c");
  const victim = await dies.createSubscriber("c");
  const { publisher, subscriber } = ends(server, "c", publisherId, subscriberId);
  publisher.buffer();
  publisher.publish(1);
  assert(subscriber.readNext());
  const { blocks } = channelOf(server, "c").physical;
  using ccb = Mapping.map(blocks.ccbFd, blocks.bytes);
  const slot = Ccb.slots + Slot.bytes * subscriber.slotId;
  const held = () => decodeRefs(ccb.view.getBigUint64(slot + Slot.refs, true)).refs;
  // As the victim leaves it when it is killed after it took its reference, and before it noted so.
  ccb.view.setBigUint64(slot + Slot.refs, ccb.view.getBigUint64(slot + Slot.refs, true) + 1n, true);
  assert.equal(victim.error, "");
  dies.close();
  await until("the client is gone", () => server.numClients === 1);
  assert.equal(held(), 2);
  server.table.sweep();
  assert.equal(held(), 2, "it may be a living subscriber's, who is about to note it");
  server.table.sweep();
  assert.equal(held(), 1, "the other subscriber's, which is noted");
  subscriber.release(subscriber.slotId);
  assert.equal(held(), 0);
  publisher.close();
  subscriber[Symbol.dispose]();
});

test("a subscriber that reloads is registered again, whatever became of its control block", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("c", { numSlots: 16 });
  const { subscriberId } = await client.createSubscriber("c");
  const { blocks } = channelOf(server, "c").physical;
  using ccb = Mapping.map(blocks.ccbFd, blocks.bytes);
  ccb.view.setInt32(Ccb.numSubs, 0, true);
  await client.createSubscriber("c", { subscriberId });
  assert.equal(blocks.numSubscribers(), 1);
});

test("a channel takes its message buffers with it", async ({ server, connect }) => {
  const client = await connect();
  const { publisherId } = await client.createPublisher("/a/c");
  const { subscriberId } = await client.createSubscriber("/a/c");
  const { publisher, subscriber } = ends(server, "/a/c", publisherId, subscriberId);
  publisher.buffer(1000);
  const names = [0, 1].map((i) => bufferName(server.sessionId, "/a/c", i));
  assert.deepEqual(names.map(sharedMemoryExists), [true, true]);
  publisher.close();
  subscriber[Symbol.dispose]();
  client.close();
  await until("the client is gone", () => server.numClients === 0);
  assert.deepEqual(names.map(sharedMemoryExists), [false, false]);
});

test("channels without users do not cost fds", async ({ server, connect }) => {
  const client = await connect();
  const before = openFds().length;
  for (let i = 0; i < 50; i++) {
    await client.createPublisher(`c${i}`, { numSlots: 16, notifyRetirement: true });
    await client.createSubscriber(`c${i}`);
    await client.createSubscriber(`v${i}`, { mux: "/m" });
  }
  client.close();
  await until("the client is gone", () => server.numClients === 0);
  assert.equal(server.table.size, 2);
  assert(openFds().length < before);
});

test("there are at most 1024 channels, and ids are used again", async ({ connect }) => {
  const client = await connect();
  for (let i = 2; i < 1024; i++) {
    const { error, channelId } = await client.createSubscriber(`c${i}`);
    assert.deepEqual([error, channelId], ["", i]);
  }
  assert.equal((await client.createSubscriber("new")).error, "INTERNAL: No capacity for another channel");
  assert.equal((await client.createPublisher("new")).error, "INTERNAL: No capacity for another channel");
  assert.equal(
    (await client.createPublisher("v", { mux: "new" })).error,
    "INTERNAL: No capacity for another mux",
  );
  await client.removeSubscriber("c500", 0);
  assert.equal((await client.createPublisher("new")).channelId, 500);
});

test("there are at most 1024 users of a channel", async ({ connect }) => {
  const client = await connect();
  for (let i = 0; i < 1024; i++) {
    assert.equal((await client.createSubscriber("c", { isReliable: true, maxActiveMessages: 0 })).error, "");
  }
  assert.equal((await client.createSubscriber("c")).error, "INTERNAL: No capacity for another subscriber");
  assert.equal((await client.createPublisher("c")).error, "INTERNAL: No capacity for another publisher");
});

Deno.test("two servers do not share a socket", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("server");
    await using _server = await Server.start({ socket });
    await assert.rejects(Server.start({ socket }), { code: "EADDRINUSE" });
  }));

Deno.test("a server that stops with a shadow leaves everything for the next one, and without one nothing", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
    const shadow = Shadow.start({ socket: shadowSocket });
    const first = await Server.start({ socket, shadowSocket });
    using client = await RawClient.connect(socket);
    const { publisherId } = await client.createPublisher("c");
    const buffer = bufferName(first.sessionId, "/subspace/ChannelDirectory", 0);
    await until("the directory is published", () => sharedMemoryExists(buffer));
    await first.stop();
    assert.equal(sharedMemoryExists(buffer), true);
    assert.deepEqual([...shadow.state.channels.get("c")!.publishers.keys()], [publisherId]);

    const second = await Server.start({ socket, shadowSocket });
    shadow.stop();
    await until("the shadow is gone", () => !second.keepsState);
    await second.stop();
    assert.equal(sharedMemoryExists(buffer), false);
  }));

Deno.test("a server that is to forget leaves nothing, in its shadows neither, and the next one begins anew", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
    using shadow = Shadow.start({ socket: shadowSocket });
    const files = new Set<string>();
    const host = { ...systemHost, removeFile: (path: string) => files.delete(path) };
    const first = await Server.start({ socket, shadowSocket, host });
    using client = await RawClient.connect(socket);
    for (let i = 0; i < 100; i++) await client.createPublisher(`/mux/${i}`, { mux: "/mux", numSlots: 200 });
    const path = splitPath(first.sessionId, "/split", 0, { slot: 0 });
    files.add(path);
    await client.createPublisher("/split", { useSplitBuffers: true });
    const metadata = { channelName: "/split", sessionId: first.sessionId, shadowFile: path };
    const registration = { case: "registerClientBuffer", value: { metadata } } as const;
    assert.equal((await client.request("registerClientBuffer", registration)).error, "");
    await until("the shadow has all", () => shadow.state.channels.size === 104);
    const buffer = bufferName(first.sessionId, "/subspace/ChannelDirectory", 0);
    assert.equal(sharedMemoryExists(buffer), true);
    await first.stop(true);
    await until("the shadow has nothing", () => shadow.state.channels.size === 0);
    assert.equal(sharedMemoryExists(buffer), false);
    assert.equal(files.size, 0);

    const second = await Server.start({ socket, shadowSocket });
    assert.notEqual(second.sessionId, first.sessionId);
    await second.stop(true);
  }));
