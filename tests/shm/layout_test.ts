import assert from "node:assert/strict";
import {
  align64,
  Bcb,
  Bitset,
  bitsetBytes,
  bufferBytes,
  buildRefs,
  Ccb,
  controlBlockBytes,
  controlBlockOffsets,
  decodeRefs,
  grownSlotBytes,
  Limit,
  ownedRefs,
  Prefix,
  prefixBytes,
  Queue,
  QueueBlock,
  queueBlockBytes,
  QueueEntry,
  QueueIndex,
  Scb,
  Slot,
  slotBytesOfBuffer,
} from "../../shm/layout.ts";
import { ChannelStruct, PublisherStruct, SnapshotEntry, SubscriberStruct } from "../../shm/structs.ts";

Deno.test("the fixed parts have the offsets of the specification", () => {
  assert.equal(Scb.stride * Limit.channels, Scb.bytes);
  assert.deepEqual(Scb, {
    bytes: 14336,
    stride: 14,
    numPubUpdates: 0,
    numSubUpdates: 2,
    numPubs: 4,
    numReliablePubs: 6,
    numSubs: 8,
    numReliableSubs: 10,
    numResizes: 12,
  });
  assert.deepEqual([Bcb.refs, Bcb.sizes, Bcb.bytes], [0, 4096, 12288]);
  assert.deepEqual(
    [Ccb.name, Ccb.nameBytes, Ccb.numSlots, Ccb.queueSize, Ccb.version, Ccb.ordinals, Ccb.activationTracker],
    [0, 64, 64, 68, 72, 80, 8272],
  );
  assert.deepEqual(
    [Ccb.bufferIndex, Ccb.numBuffers, Ccb.subscribers, Ccb.subscriberVchans, Ccb.numSubs, Ccb.totalBytes],
    [8408, 8412, 8416, 8552, 10600, 14696],
  );
  assert.deepEqual(
    [Ccb.totalMessages, Ccb.maxMessageSize, Ccb.totalDrops, Ccb.freeSlotsExhausted, Ccb.slots],
    [14704, 14712, 14716, 14720, 14728],
  );
  assert.deepEqual(
    [
      Slot.refs,
      Slot.ordinal,
      Slot.messageSize,
      Slot.id,
      Slot.bufferIndex,
      Slot.vchan,
      Slot.owners,
      Slot.timestamp,
    ],
    [0, 8, 16, 24, 28, 30, 32, 168],
  );
  assert.deepEqual([Slot.flags, Slot.bridgedSlot, Slot.bytes], [176, 180, 184]);
  assert.deepEqual([QueueIndex.nextOffset, QueueIndex.offsets, QueueIndex.activePublishers], [0, 8, 8200]);
  assert.deepEqual([QueueIndex.bytes, QueueIndex.paddedBytes], [12296, align64(12296)]);
  assert.deepEqual(
    [QueueBlock.blockSize, QueueBlock.state, QueueBlock.waitingPublishers, QueueBlock.bytes],
    [0, 8, 16, 192],
  );
  assert.deepEqual(
    [
      Queue.capacity,
      Queue.head,
      Queue.tail,
      Queue.overflowCount,
      Queue.insertionFailed,
      Queue.dropOldest,
      Queue.bytes,
    ],
    [0, 8, 16, 24, 28, 29, 32],
  );
  assert.deepEqual([QueueEntry.sequence, QueueEntry.ordinal, QueueEntry.slot, QueueEntry.bytes], [
    0,
    8,
    16,
    24,
  ]);
  assert.deepEqual(
    [
      Prefix.padding,
      Prefix.slot,
      Prefix.messageSize,
      Prefix.ordinal,
      Prefix.timestamp,
      Prefix.flags,
      Prefix.vchan,
    ],
    [0, 4, 8, 16, 24, 32, 40],
  );
  assert.deepEqual([Prefix.checksumBytes, Prefix.metadataBytes, Prefix.checksum, Prefix.fixedBytes], [
    44,
    46,
    48,
    48,
  ]);
});

Deno.test("a bitset of ids has 136 bytes", () => {
  assert.equal(bitsetBytes(1024), 136);
  assert.deepEqual(Bitset, { numBits: 0, words: 8, idBytes: 136, idWords: 16 });
  assert.deepEqual([0, 1, 64, 65, 4096].map(bitsetBytes), [8, 16, 16, 24, 520]);
});

Deno.test("a control block has the parts and the size of the specification, for any number of slots", () => {
  const table = [
    [0, 14784, 14848, 14912, 8, 23104, 35456, 99456],
    [1, 14912, 14976, 15040, 16, 31424, 43776, 107776],
    [4, 15488, 15552, 15616, 16, 32000, 44352, 108352],
    [5, 15680, 15744, 15808, 16, 32192, 44544, 108544],
    [8, 16256, 16320, 16384, 16, 32768, 45120, 109120],
    [10, 16576, 16640, 16704, 16, 33088, 45440, 109440],
    [16, 17728, 17792, 17856, 16, 34240, 46592, 110592],
    [32, 20672, 20736, 20800, 16, 37184, 49536, 113536],
    [64, 26560, 26624, 26688, 16, 43072, 55424, 119424],
    [65, 26688, 26752, 26816, 24, 51392, 63744, 127744],
    [100, 33152, 33216, 33280, 24, 57856, 70208, 134208],
    [256, 61888, 61952, 62016, 40, 102976, 115328, 179328],
    [500, 106752, 106880, 107008, 72, 180736, 193088, 257088],
    [1000, 198784, 198976, 199168, 136, 338432, 350784, 414784],
    [4096, 768448, 769024, 769600, 520, 1302080, 1314432, 1378432],
  ];
  for (const [numSlots, retired, free, available, availableStride, queueIndex, bytes, withArena] of table) {
    assert.deepEqual(controlBlockOffsets(numSlots, 0), {
      retired,
      free,
      available,
      availableStride,
      queueIndex,
      queueArena: queueIndex + 12352,
      bytes,
    });
    assert.equal(controlBlockBytes(numSlots, 64000), withArena);
  }
});

Deno.test("queue blocks, prefixes and buffers have the sizes of the specification", () => {
  assert.deepEqual([0, 1, 16, 64, 1024].map(queueBlockBytes), [256, 256, 640, 1792, 24832]);
  assert.equal(Math.floor(64000 / queueBlockBytes(16)), 100);
  const prefixes = [[4, 0], [4, 12], [4, 13], [20, 0], [32, 64]].map(([checksum, metadata]) =>
    prefixBytes(checksum, metadata)
  );
  assert.deepEqual(prefixes, [64, 64, 128, 128, 192]);
  assert.equal(bufferBytes(5, 256, 64), 1600);
  assert.equal(slotBytesOfBuffer(1600, 5, 64), 256);
  assert.equal(slotBytesOfBuffer(0, 5, 64), 0);
});

Deno.test("the refs word matches the vectors of the specification", () => {
  assert.equal(buildRefs(1n, -1, 0), 0x000001ffc0000000n);
  assert.equal(buildRefs(0n, -1, 0), 0n);
  assert.equal(buildRefs(5n, 3, 2), 0x00000500c0200000n);
  assert.equal(buildRefs(1n << 23n, -1, 0), 0x000000ffc0000000n);
  assert.equal(ownedRefs(7), 0x8000000000000007n);
  assert.deepEqual(decodeRefs(0x000001ffc0100000n), {
    owner: null,
    refs: 0,
    reliableRefs: 0,
    retired: 1,
    vchanId: -1,
    ordinal: 1,
  });
  assert.equal(decodeRefs(ownedRefs(7)).owner, 7);
  const held = decodeRefs(buildRefs(9n, 3, 1) | 2n << 10n | 3n);
  assert.deepEqual([held.refs, held.reliableRefs, held.vchanId, held.ordinal], [3, 2, 3, 9]);
});

Deno.test("slots grow by the factors of the specification until a message fits", () => {
  assert.equal(grownSlotBytes(256, 257), 512);
  assert.equal(grownSlotBytes(64, 4000), 4096);
  assert.equal(grownSlotBytes(4096, 4097), 8192);
  assert.equal(grownSlotBytes(8192, 8193), 12288);
  assert.equal(grownSlotBytes(65536, 65537), 81920);
  assert.equal(grownSlotBytes(262144, 262145), 294912);
  assert.equal(grownSlotBytes(1048576, 1048577), 1114112);
  assert.equal(grownSlotBytes(2097152, 2097153), align64(2097152 * 1.03125));
  assert.equal(grownSlotBytes(512, 100), 512);
});

Deno.test("the core's structs have no field that overlaps another", () => {
  const sizes: Record<string, number> = {
    "PublisherStruct.time": 16,
    "PublisherStruct.ordinal": 8,
    "PublisherStruct.prefix": 48,
    "PublisherStruct.exempt": 128,
    "PublisherStruct.refused": 128,
    "PublisherStruct.since": 8,
    "PublisherStruct.before": 8,
    "PublisherStruct.looked": 8,
    "PublisherStruct.trusted": 128,
    "SubscriberStruct.stamp": 8,
    "SubscriberStruct.ordinal": 8,
    "SubscriberStruct.timestamp": 8,
    "SnapshotEntry.key": 8,
    "SnapshotEntry.ordinal": 8,
  };
  for (
    const [table, fields] of Object.entries({
      ChannelStruct,
      PublisherStruct,
      SubscriberStruct,
      SnapshotEntry,
    })
  ) {
    const { bytes, ...offsets } = fields;
    const used = new Set<number>();
    for (const [field, offset] of Object.entries(offsets)) {
      const size = sizes[`${table}.${field}`] ?? 4;
      assert.equal(offset % Math.min(size, 8), 0, `${table}.${field} is aligned`);
      for (let i = offset; i < offset + size; i++) {
        assert(i < bytes && !used.has(i), `${table}.${field} has byte ${i} for itself`);
        used.add(i);
      }
    }
  }
});
