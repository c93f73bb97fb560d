import assert from "node:assert/strict";
import { ControlBlockError } from "../../shm/control_blocks.ts";
import {
  buildRefs,
  Ccb,
  ownedRefs,
  Queue,
  QueueBlock,
  queueBlockBytes,
  QueueBlockState,
  QueueEntry,
  QueueIndex,
  Slot,
} from "../../shm/layout.ts";
import { QueueArenaFullError } from "../../shm/registry.ts";
import { LocalChannel, receiveAll, send } from "./local_channel.ts";

const ARENA_BYTES = 8192;

/** Offset of a subscriber's queue in the control block; null where it has none. */
function queueOffset(channel: LocalChannel, id: number): number | null {
  using memory = channel.map();
  const { queueIndex, queueArena } = channel.offsets;
  const offset = memory.view.getBigUint64(queueIndex + QueueIndex.offsets + 8 * id, true);
  return offset === 0xffff_ffff_ffff_ffffn ? null : queueArena + Number(offset);
}

/** What is in a queue, oldest first, as [slot, ordinal]; how many were dropped; whether a push failed. */
function readQueue(channel: LocalChannel, id: number) {
  using memory = channel.map();
  const { view } = memory, queue = queueOffset(channel, id)!;
  const capacity = Number(view.getBigUint64(queue + Queue.capacity, true));
  const head = Number(view.getBigUint64(queue + Queue.head, true));
  const tail = Number(view.getBigUint64(queue + Queue.tail, true));
  const entries: number[][] = [];
  for (let position = head; position < tail; position++) {
    const entry = queue + Queue.bytes + QueueEntry.bytes * (position % capacity);
    assert.equal(Number(view.getBigUint64(entry + QueueEntry.sequence, true)), position + 1);
    entries.push([
      view.getInt32(entry + QueueEntry.slot, true),
      Number(view.getBigUint64(entry + QueueEntry.ordinal, true)),
    ]);
  }
  return {
    capacity,
    entries,
    overflow: view.getUint32(queue + Queue.overflowCount, true),
    failed: view.getUint8(queue + Queue.insertionFailed) !== 0,
  };
}

/** The blocks of the queue arena, as [size, state]. */
function readBlocks(channel: LocalChannel): number[][] {
  using memory = channel.map();
  const { view } = memory, { queueIndex, queueArena } = channel.offsets, blocks: number[][] = [];
  const end = Number(view.getBigUint64(queueIndex + QueueIndex.nextOffset, true));
  for (let offset = 0; offset < end; offset += blocks.at(-1)![0]) {
    const block = queueArena + offset;
    blocks.push([
      Number(view.getBigUint64(block + QueueBlock.blockSize, true)),
      view.getUint32(block + QueueBlock.state, true),
    ]);
  }
  return blocks;
}

const { allocated, retired, free } = QueueBlockState;

Deno.test("a subscriber is delivered to from its registration on, and counted", () => {
  using channel = new LocalChannel();
  const { registry, blocks } = channel;
  registry.addSubscriber(70, -1, true);
  registry.addSubscriber(3, 9, true);
  registry.addSubscriber(4, 1022, true);
  assert.deepEqual([blocks.hasSubscriber(70), blocks.hasSubscriber(71)], [true, false]);
  assert.deepEqual([70, 3, 4].map((id) => blocks.subscriberVchan(id)), [-1, 9, 1022]);
  assert.deepEqual([-1, 9, 1022, 5].map((vchan) => blocks.numSubscribers(vchan)), [1, 2, 2, 1]);
  registry.removeSubscriber(70, false);
  registry.removeSubscriber(4, false);
  assert.deepEqual([-1, 9, 1022, 5].map((vchan) => blocks.numSubscribers(vchan)), [0, 1, 0, 0]);
  assert.throws(() => registry.addSubscriber(1024, -1, true), /ids are 0 to 1023/);
});

Deno.test("a placeholder counts its subscribers and has nothing else", () => {
  using channel = new LocalChannel({ numSlots: 0, queueArenaBytes: ARENA_BYTES });
  channel.registry.addSubscriber(0, -1, true);
  assert.equal(channel.blocks.numSubscribers(), 1);
  assert.equal(channel.registry.allocateQueue(0, 5), 0);
  channel.registry.checkQueues();
  channel.registry.reconcileQueues();
  assert.deepEqual(channel.registry.removeSubscriber(0, true), []);
  assert.equal(channel.blocks.numSubscribers(), 0);
});

Deno.test("a new subscriber's bits and queue are seeded with the messages that are there, oldest first", () => {
  using channel = new LocalChannel({ numSlots: 40, queueArenaBytes: ARENA_BYTES });
  using publisher = channel.publisher(0);
  using reader = channel.subscriber(1);
  for (let i = 0; i < 30; i++) send(publisher, "x");
  receiveAll(reader);
  for (let i = 0; i < 30; i++) send(publisher, "y");
  channel.registry.allocateQueue(2, 64);
  using subscriber = channel.subscriber(2);
  const { entries } = readQueue(channel, 2);
  const ordinals = entries.map(([, ordinal]) => ordinal);
  assert.deepEqual(ordinals, ordinals.toSorted((a, b) => a - b));
  assert.equal(entries.length, 39, "all but the slot of the publisher");
  assert.equal(receiveAll(subscriber).length, 39);
});

Deno.test("a subscriber that is registered again goes on with what it has not read", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  send(publisher, "a");
  send(publisher, "b");
  assert(subscriber.readNext());
  subscriber.release(subscriber.slotId);
  channel.registry.addSubscriber(1, -1, false);
  assert.deepEqual(receiveAll(subscriber), ["b"]);
  assert.equal(channel.blocks.numSubscribers(), 1);
});

Deno.test("the slots of a dead publisher are for others to take, all of them", () => {
  using channel = new LocalChannel({ numSlots: 3 });
  using dead = channel.publisher(5);
  using subscriber = channel.subscriber(1);
  send(dead, "published");
  using memory = channel.map();
  memory.view.setBigUint64(Ccb.slots + 2 * Slot.bytes, ownedRefs(5), true); // a lease of its
  channel.registry.removePublisher(5);
  assert.equal(memory.view.getBigUint64(Ccb.slots + Slot.bytes, true), 0n);
  assert.deepEqual(receiveAll(subscriber), ["published"], "what it published stays");
  using heir = channel.publisher(6);
  for (let i = 0; i < 9; i++) {
    assert.notEqual(send(heir, String(i)), null);
    assert.deepEqual(receiveAll(subscriber), [String(i)]);
  }
});

Deno.test("removing a subscriber gives back what it held and says which slots that retired", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1, { maxActiveMessages: 3 });
  for (const text of ["a", "b", "c"]) send(publisher, text);
  for (let i = 0; i < 3; i++) assert(subscriber.readNext());
  using memory = channel.map();
  memory.view.setInt32(Ccb.slots + Slot.bytes + Slot.bridgedSlot, 777, true);
  assert.deepEqual(
    channel.removeSubscriber(1, false),
    [0, 777, 2],
    "a bridged slot has its id of the other machine",
  );
  const refs = memory.view.getBigUint64(Ccb.slots, true);
  assert.equal(refs, buildRefs(1n, -1, 0), "the counts are back at zero");
  for (let slotId = 0; slotId < 3; slotId++) subscriber.release(slotId);
  assert.equal(memory.view.getBigUint64(Ccb.slots, true), refs, "a release after that changes nothing");
});

Deno.test("a message goes into each subscriber's queue as well, and a full queue says so", () => {
  using channel = new LocalChannel({ numSlots: 32, queueArenaBytes: ARENA_BYTES });
  assert.equal(channel.registry.allocateQueue(1, 4), 4);
  assert.equal(channel.registry.allocateQueue(2, 0), 16);
  using publisher = channel.publisher(0);
  using drops = channel.subscriber(1);
  using keeps = channel.subscriber(2);
  using none = channel.subscriber(3);
  for (let i = 1; i <= 18; i++) send(publisher, String(i));
  const dropping = readQueue(channel, 1), keeping = readQueue(channel, 2);
  assert.deepEqual(dropping.entries, [[14, 15], [15, 16], [16, 17], [17, 18]]);
  assert.deepEqual([dropping.overflow, dropping.failed], [14, false]);
  assert.deepEqual(keeping.entries, Array.from({ length: 16 }, (_, i) => [i, i + 1]));
  assert.deepEqual([keeping.overflow, keeping.failed], [0, true]);
  assert.equal(queueOffset(channel, 3), null);
  for (const subscriber of [drops, keeps, none]) assert.equal(receiveAll(subscriber).length, 18);
});

Deno.test("nobody is among the queues after publishing", () => {
  using channel = new LocalChannel({ queueArenaBytes: ARENA_BYTES });
  using publisher = channel.publisher(6);
  using _subscriber = channel.subscriber(1);
  send(publisher, "x");
  using memory = channel.map();
  const active = channel.offsets.queueIndex + QueueIndex.activePublishers;
  assert.equal(memory.view.getUint32(active + 4 * 6, true), 0);
  memory.view.setUint32(active + 4 * 9, 2, true);
  channel.registry.clearHazard(9);
  assert.equal(memory.view.getUint32(active + 4 * 9, true), 0);
});

Deno.test("an entry left half-written makes a queue refuse, and nobody waits for it", () => {
  using channel = new LocalChannel({ numSlots: 16, queueArenaBytes: ARENA_BYTES });
  channel.registry.allocateQueue(1, 2);
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  using memory = channel.map();
  const queue = queueOffset(channel, 1)!;
  memory.view.setBigUint64(queue + Queue.tail, 1n, true); // position 0 is taken and never written
  for (let i = 0; i < 6; i++) send(publisher, String(i));
  assert(memory.view.getUint8(queue + Queue.insertionFailed));
  assert.equal(receiveAll(subscriber).length, 6);
  const lease = publisher.lease()!;
  publisher.leasedBuffer(lease)[0] = 65;
  publisher.publishLease(lease, 1);
  assert.deepEqual(receiveAll(subscriber), ["A"], "published by lease, too");
});

Deno.test("queues are laid out side by side, and a new one has the specification's initial values", () => {
  using channel = new LocalChannel({ queueArenaBytes: ARENA_BYTES });
  channel.registry.allocateQueue(0, 0);
  channel.registry.allocateQueue(1023, 1);
  assert.deepEqual(readBlocks(channel), [[640, allocated], [256, allocated]]);
  assert.equal(queueOffset(channel, 0), channel.offsets.queueArena + 192);
  assert.equal(queueOffset(channel, 1023), channel.offsets.queueArena + 640 + 192);
  using memory = channel.map();
  const { view } = memory, queue = queueOffset(channel, 0)!;
  assert.deepEqual(
    [view.getUint8(queue + Queue.dropOldest), view.getUint8(queueOffset(channel, 1023)! + 29)],
    [0, 1],
  );
  for (let i = 0; i < 16; i++) {
    const entry = queue + Queue.bytes + QueueEntry.bytes * i;
    assert.equal(Number(view.getBigUint64(entry + QueueEntry.sequence, true)), i);
    assert.equal(view.getInt32(entry + QueueEntry.slot, true), -1);
  }
  channel.registry.checkQueues();
  assert.equal(channel.registry.allocateQueue(0, 0), 16, "a queue that is there stays");
  assert.throws(() => channel.registry.allocateQueue(0, 3), ControlBlockError);
});

Deno.test("free blocks are joined, the best fit is taken, and split if the rest is worth it", () => {
  using channel = new LocalChannel({ queueArenaBytes: ARENA_BYTES });
  const { registry } = channel;
  [16, 16, 64, 1].forEach((capacity, id) => registry.allocateQueue(id, capacity));
  registry.retireQueue(0);
  registry.retireQueue(1);
  registry.retireQueue(1);
  assert.deepEqual(readBlocks(channel), [[640, free], [640, free], [1792, allocated], [256, allocated]]);
  registry.allocateQueue(5, 30);
  assert.equal(queueBlockBytes(30), 960);
  assert.deepEqual(readBlocks(channel), [[960, allocated], [320, free], [1792, allocated], [256, allocated]]);
  registry.allocateQueue(6, 2);
  assert.deepEqual(readBlocks(channel).slice(0, 2), [[960, allocated], [320, allocated]]);
  registry.checkQueues();
});

Deno.test("a block is not used again while a publisher may still be writing to it", () => {
  using channel = new LocalChannel({ queueArenaBytes: 640 });
  const { registry } = channel;
  using memory = channel.map();
  registry.allocateQueue(0, 16);
  const active = channel.offsets.queueIndex + QueueIndex.activePublishers + 4 * 77;
  memory.view.setUint32(active, 1, true);
  registry.retireQueue(0);
  assert.deepEqual(readBlocks(channel), [[640, retired]]);
  assert.throws(
    () => registry.allocateQueue(1, 16),
    (error) =>
      error instanceof QueueArenaFullError &&
      error.message ===
        "subscriber queue capacity 16 does not fit in channel /test/channel queue arena (0 of 640 bytes remain)",
  );
  memory.view.setUint32(active, 0, true);
  assert.equal(registry.allocateQueue(1, 16), 16);
});

Deno.test("queues that have no place are refused with the reference's words", () => {
  using channel = new LocalChannel({ queueArenaBytes: 1000 });
  assert.throws(
    () => channel.registry.allocateQueue(0, 1024),
    /capacity 1024 .* \(1000 of 1000 bytes remain\)/,
  );
  channel.registry.allocateQueue(0, 16);
  assert.throws(() => channel.registry.allocateQueue(1, 16), /capacity 16 .* \(360 of 1000 bytes remain\)/);
  assert.throws(() => channel.registry.allocateQueue(1, 1025), /the capacity is 1 to 1024/);
  using without = new LocalChannel();
  assert.equal(without.registry.allocateQueue(0, 0), 0);
  assert.throws(() => without.registry.allocateQueue(0, 5), /\(0 of 0 bytes remain\)/);
});

Deno.test("after a crash of the server, queues and blocks without a subscriber are freed", () => {
  using channel = new LocalChannel({ queueArenaBytes: ARENA_BYTES });
  const { registry } = channel;
  for (const id of [0, 1, 2]) registry.allocateQueue(id, 16);
  registry.addSubscriber(1, -1, true);
  using memory = channel.map();
  const offset = channel.offsets.queueIndex + QueueIndex.offsets;
  memory.view.setBigInt64(offset + 8 * 2, -1n, true); // between clearing the offset and retiring the block
  registry.reconcileQueues();
  assert.deepEqual(readBlocks(channel), [[640, free], [640, allocated], [640, free]]);
  assert.deepEqual([queueOffset(channel, 0) === null, queueOffset(channel, 1) === null], [true, false]);
  registry.addSubscriber(5, -1, true);
  memory.view.setBigUint64(offset + 8 * 5, memory.view.getBigUint64(offset + 8, true), true);
  assert.throws(() => registry.reconcileQueues(), ControlBlockError, "two subscribers share a block");
});

Deno.test("a queue arena that contradicts itself is refused", () => {
  const damages: [string, (view: DataView, index: number, arena: number) => void][] = [
    ["high-water mark beyond the arena", (view, index) => view.setBigUint64(index, 99_999n, true)],
    ["high-water mark within a block", (view, index) => view.setBigUint64(index, 700n, true)],
    ["a block of no size", (view, _, arena) => view.setBigUint64(arena, 0n, true)],
    ["a block of wild size", (view, _, arena) => view.setBigUint64(arena, 2n ** 63n, true)],
    ["a block across the end", (view, _, arena) => view.setBigUint64(arena + 640, 6400n, true)],
    ["an unknown state", (view, _, arena) => view.setUint32(arena + 8, 3, true)],
    ["a queue in a free block", (view, _, arena) => view.setUint32(arena + 8, 2, true)],
    ["an offset between blocks", (view, index) => view.setBigUint64(index + 8, 200n, true)],
    ["an offset below the first header", (view, index) => view.setBigUint64(index + 8, 64n, true)],
    ["an offset beyond the mark", (view, index) => view.setBigUint64(index + 8, 1280n + 192n, true)],
    ["a wild capacity", (view, _, arena) => view.setBigUint64(arena + 192, 2n ** 40n, true)],
    ["a capacity that does not fit", (view, _, arena) => view.setBigUint64(arena + 192, 100n, true)],
  ];
  for (const [what, damage] of damages) {
    using channel = new LocalChannel({ queueArenaBytes: ARENA_BYTES });
    const { registry } = channel;
    registry.allocateQueue(0, 16);
    registry.allocateQueue(1, 16);
    registry.addSubscriber(0, -1, true);
    registry.checkQueues();
    using memory = channel.map();
    damage(memory.view, channel.offsets.queueIndex, channel.offsets.queueArena);
    assert.throws(() => registry.checkQueues(), ControlBlockError, what);
    assert.throws(() => registry.reconcileQueues(), ControlBlockError, what);
    assert.throws(() => registry.allocateQueue(2, 16), ControlBlockError, what);
    registry.removeSubscriber(0, false);
    using publisher = channel.publisher(9);
    using subscriber = channel.subscriber(1);
    send(publisher, "still works");
    assert.deepEqual(receiveAll(subscriber), ["still works"], what);
  }
});
