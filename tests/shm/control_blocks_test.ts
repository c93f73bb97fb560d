import assert from "node:assert/strict";
import { Mapping } from "../../ffi/mapping.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { createPacketPipe } from "../../ffi/pipe.ts";
import { ControlBlockError, ControlBlocks } from "../../shm/control_blocks.ts";
import { readControlBlock, readCounters, readOrdinalCount } from "../../shm/inspection.ts";
import { Bcb, Ccb, controlBlockBytes, controlBlockOffsets, Slot } from "../../shm/layout.ts";
import { SystemControlBlock } from "../../shm/system_control_block.ts";
import { LocalChannel, receive, send } from "./local_channel.ts";

const shape = { channelName: "/a/channel", numSlots: 5, queueArenaBytes: 64000 };

Deno.test("new control blocks have the initial values of the specification, and zeroes everywhere else", () => {
  using scb = SystemControlBlock.create();
  using blocks = ControlBlocks.create(shape, scb.counters(3));
  using mapping = Mapping.map(blocks.ccbFd, blocks.bytes);
  const { view } = mapping, offsets = controlBlockOffsets(5, 64000);
  assert.equal(blocks.bytes, 108544);
  const take = (offset: number, bytes: number, expected: bigint) => {
    const actual = bytes === 8
      ? view.getBigUint64(offset, true)
      : bytes === 4
      ? BigInt(view.getUint32(offset, true))
      : BigInt(view.getUint16(offset, true));
    assert.equal(actual, expected, `at ${offset}`);
    mapping.bytes.fill(0, offset, offset + bytes);
  };
  assert.equal(new TextDecoder().decode(mapping.bytes.subarray(0, 11)), "/a/channel\0");
  mapping.bytes.fill(0, 0, 10);
  take(Ccb.numSlots, 4, 5n);
  take(Ccb.queueSize, 4, 16n);
  take(Ccb.version, 4, 4n);
  for (let i = 0; i < 1024; i++) take(Ccb.ordinals + 8 * i, 8, 1n);
  take(Ccb.subscribers, 8, 1024n);
  for (let i = 0; i < 5; i++) {
    const slot = Ccb.slots + Slot.bytes * i;
    take(slot + Slot.id, 4, BigInt(i));
    take(slot + Slot.bufferIndex, 2, 0xffffn);
    take(slot + Slot.vchan, 2, 0xffffn);
    take(slot + Slot.owners, 8, 1024n);
    take(slot + Slot.bridgedSlot, 4, 0xffff_ffffn);
  }
  take(offsets.retired, 8, 5n);
  take(offsets.free, 8, 5n);
  take(offsets.free + 8, 8, 0b11111n);
  for (let i = 0; i < 1024; i++) take(offsets.available + 16 * i, 8, 5n);
  for (let i = 0; i < 1024; i++) take(offsets.queueIndex + 8 + 8 * i, 8, 0xffff_ffff_ffff_ffffn);
  assert(mapping.bytes.every((byte) => byte === 0), "activation_tracker.num_bits included");
  using bcb = Mapping.map(blocks.bcbFd, Bcb.bytes);
  assert(bcb.bytes.every((byte) => byte === 0));
});

Deno.test("a name longer than 63 bytes is cut in the control block", () => {
  using scb = SystemControlBlock.create();
  using blocks = ControlBlocks.create({ ...shape, channelName: "/" + "n".repeat(100) }, scb.counters(0));
  const name = new Uint8Array(Ccb.nameBytes);
  blocks.ccbFd.readAt(Ccb.name, name);
  assert.equal(new TextDecoder().decode(name), "/" + "n".repeat(62) + "\0");
  assert.deepEqual(readControlBlock(blocks.ccbFd, blocks.bcbFd, 5).problems, []);
});

Deno.test("control blocks are attached only if they are long enough, of version 4 and of the shape expected", () => {
  using scb = SystemControlBlock.create();
  const counters = scb.counters(0);
  using made = ControlBlocks.create(shape, counters);
  const attach = (numSlots: number, arena = 64000) =>
    ControlBlocks.attach(
      { channelName: "/a/channel", numSlots, queueArenaBytes: arena },
      counters,
      made.ccbFd.duplicate(),
      made.bcbFd.duplicate(),
    );
  using attached = attach(5);
  assert.equal(attached.numSlots, 5);
  const refused = (test: () => unknown, message: RegExp) => {
    assert.throws(test, (error) => error instanceof ControlBlockError && message.test(error.message));
  };
  using short = createMemory("short", 100);
  const attachShort = (ccb = made.ccbFd, bcb = made.bcbFd) => ControlBlocks.attach(shape, counters, ccb, bcb);
  refused(() => attachShort(short), /the control block of channel \/a\/channel: it has 100 bytes of 108544/);
  refused(() => attachShort(made.ccbFd, short), /the buffer control block of .*: it has 100 bytes of 12288/);
  using other = createMemory("other", controlBlockBytes(5, 64000));
  refused(() => attachShort(other), /is of version 0, and only 4 is known/);
  using mapping = Mapping.map(made.ccbFd, made.bytes);
  mapping.view.setInt32(Ccb.numSlots, 4, true);
  refused(() => attachShort(), /it has 4 slots, not 5/);
  assert(!short.closed && !made.ccbFd.closed, "fds stay the caller's where attaching failed");
});

Deno.test("a control block beyond 1 GiB is refused", () => {
  using scb = SystemControlBlock.create();
  for (
    const wild of [{ numSlots: 6_000_000 }, { queueArenaBytes: 2 ** 30 }, { numSlots: -1 }, { numSlots: 1.5 }]
  ) {
    assert.throws(() => ControlBlocks.create({ ...shape, ...wild }, scb.counters(0)), ControlBlockError);
  }
});

Deno.test("the counters of a channel are its own, count up and down, and never fall below zero", () => {
  using scb = SystemControlBlock.create();
  const counters = scb.counters(1023);
  counters.countPublisher(1, true);
  counters.countSubscriber(1, false);
  counters.countSubscriber(1, true);
  counters.countSubscriber(-1, false);
  counters.numResizes = 2;
  assert.deepEqual(readCounters(scb.fd)[1023], {
    numPubUpdates: 1,
    numSubUpdates: 3,
    numPubs: 1,
    numReliablePubs: 1,
    numSubs: 1,
    numReliableSubs: 1,
    numResizes: 2,
  });
  assert(Object.values(readCounters(scb.fd)[1022]).every((value) => value === 0));
  counters.countPublisher(-1, true);
  counters.countPublisher(-1, true);
  assert.deepEqual([counters.numPubs, counters.numReliablePubs, counters.numPubUpdates], [0, 0, 3]);
  counters.clear();
  assert(Object.values(readCounters(scb.fd)[1023]).every((value) => value === 0));
  assert.throws(() => scb.counters(1024), /ids are 0 to 1023/);
});

Deno.test("a control block can be looked at while it is used, without being touched", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(9);
  send(publisher, "one");
  send(publisher, "three");
  assert.equal(receive(subscriber), "one");
  assert(subscriber.readNext());
  const report = readControlBlock(channel.blocks.ccbFd, channel.blocks.bcbFd, 4);
  assert.deepEqual(report.problems, []);
  assert.deepEqual(report.totals, { bytes: 8, messages: 2, maxMessageSize: 5, drops: 0 });
  assert.deepEqual(report.totals, channel.blocks.totals);
  assert.deepEqual(report.subscribers, [9]);
  assert.deepEqual(report.slots.map((slot) => slot.state), ["retired", "held", "owned", "free"]);
  assert.deepEqual(report.slots[1].holders, [9]);
  assert.deepEqual([...report.unread], [[9, 0]]);
  assert.equal(readOrdinalCount(channel.blocks.ccbFd, -1), 2);
  assert.deepEqual([report.slots[1].ordinal, report.slots[1].messageSize, report.slots[2].owner], [2, 5, 0]);
  assert.deepEqual(report.buffers, [{ bytes: 4 * (256 + 64), slots: 3 }]);
});

Deno.test("a damaged control block is reported as far as it can be read", () => {
  using bcb = createMemory("bcb", 10);
  using empty = createMemory("ccb", 10);
  assert.match(readControlBlock(empty, bcb, 4).problems.join(), /has 10 bytes instead of 14728 or more/);
  using garbage = createMemory("ccb", 20_000);
  using mapping = Mapping.map(garbage, 20_000);
  mapping.bytes.fill(0xff);
  const report = readControlBlock(garbage, bcb, 1000);
  assert.equal(report.slots.length, 0);
  assert.deepEqual(report.problems, [
    "version 4294967295 instead of 4",
    "-1 slots instead of 1000",
    "20000 bytes instead of 350784 or more",
    "the bitset of subscribers has 18446744073709552000 bits instead of 1024",
    "-1 message buffers",
    "the buffer control block has 10 bytes instead of 12288 or more",
  ]);
});

Deno.test("a slot that contradicts itself is reported, and the others are shown", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0);
  using _subscriber = channel.subscriber(9);
  send(publisher, "one");
  using mapping = channel.map();
  const slot = Ccb.slots;
  mapping.view.setInt32(slot + Slot.id, 7, true);
  mapping.view.setInt16(slot + Slot.bufferIndex, 5, true);
  mapping.view.setUint32(slot + Slot.owners, 99, true);
  mapping.view.setUint32(channel.offsets.free, 12, true);
  const report = readControlBlock(channel.blocks.ccbFd, channel.blocks.bcbFd, 4);
  assert.deepEqual(report.problems, [
    "the bitset of free slots has 12 bits instead of 4",
    "slot 0 calls itself 7",
    "the bitset of holders of slot 0 has 99 bits instead of 1024",
    "slot 0 is in buffer 5 of 1",
  ]);
  assert.deepEqual(report.slots.map((slot) => slot.state), ["published", "owned", "free", "free"]);
  assert.equal(report.unread.get(9), 1);
});

Deno.test("what is no memory at all is reported instead of a control block", () => {
  const [read, write] = createPacketPipe();
  using _read = read;
  using _write = write;
  assert.deepEqual(readControlBlock(read, write, 4).problems, ["the control block cannot be read (ESPIPE)"]);
});
