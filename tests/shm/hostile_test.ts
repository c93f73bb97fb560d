import assert from "node:assert/strict";
import { ControlBlockError } from "../../shm/control_blocks.ts";
import { Ccb, QueueIndex, Slot } from "../../shm/layout.ts";
import { LocalChannel, receive, receiveAll, send } from "./local_channel.ts";

const slotAt = (id: number) => Ccb.slots + Slot.bytes * id;

Deno.test("a message that says to be larger than its slot is skipped with an error, and the others are read", () => {
  for (const size of [257n, 2n ** 40n, 0n]) {
    using channel = new LocalChannel();
    using publisher = channel.publisher(0);
    using subscriber = channel.subscriber(1);
    for (const text of ["a", "bad", "c"]) send(publisher, text);
    using memory = channel.map();
    memory.view.setBigUint64(slotAt(1) + Slot.messageSize, size, true);
    assert.equal(receive(subscriber), "a");
    assert.throws(
      () => subscriber.readNext(),
      (error) =>
        error instanceof ControlBlockError && /Cannot read message 2 .* of 256 bytes/.test(error.message),
    );
    assert.equal(receive(subscriber), "c");
    assert.equal(subscriber.active, 0);
  }
});

Deno.test("slots that say to be in a buffer that cannot be are left, and no publisher stumbles over them", () => {
  for (const index of [-1, -2, -32768, 1, 1023, 1024, 32767]) {
    using channel = new LocalChannel({ numSlots: 4 });
    using publisher = channel.publisher(0);
    using subscriber = channel.subscriber(1);
    send(publisher, "bad");
    send(publisher, "good");
    using memory = channel.map();
    memory.view.setInt16(slotAt(0) + Slot.bufferIndex, index, true);
    assert.deepEqual(receiveAll(subscriber), ["good"]);
    for (let i = 0; i < 10; i++) send(publisher, String(i));
    assert.deepEqual(receiveAll(subscriber), ["7", "8", "9"]);
  }
});

Deno.test("wild reference counts, owners and ordinals end no read and no publication in a loop or a crash", () => {
  const words = [
    0n,
    2n ** 64n - 1n,
    2n ** 63n,
    2n ** 63n | 1023n,
    0x3ffn,
    0xfffffn,
    0x1ffc00003ffn,
    2n ** 62n,
  ];
  for (const word of words) {
    for (const ordinal of [0n, 1n, 1n << 23n, 2n ** 64n - 1n]) {
      using channel = new LocalChannel({ numSlots: 4 });
      using reliable = channel.publisher(0, { reliable: true });
      using publisher = channel.publisher(1);
      using subscriber = channel.subscriber(2, { reliable: true, maxActiveMessages: 4 });
      using newest = channel.subscriber(3);
      for (let i = 0; i < 3; i++) send(publisher, "x");
      using memory = channel.map();
      for (const id of [0, 1]) {
        memory.view.setBigUint64(slotAt(id), word, true);
        memory.view.setBigUint64(slotAt(id) + Slot.ordinal, ordinal, true);
      }
      for (let i = 0; i < 4; i++) {
        reliable.buffer();
        subscriber.readNext();
        newest.readNewest();
        if (publisher.buffer() !== null) publisher.publish(1);
      }
      channel.removeSubscriber(3, false);
      channel.registry.removePublisher(1);
    }
  }
});

Deno.test("bits of slots that do not exist are not looked at", () => {
  using channel = new LocalChannel({ numSlots: 5 });
  using memory = channel.map();
  const { retired, free, available, availableStride } = channel.offsets;
  for (const bitset of [retired, free, available + availableStride]) {
    memory.view.setBigUint64(bitset, 2n ** 64n - 1n, true); // num_bits, too
    memory.view.setBigUint64(bitset + 8, 2n ** 64n - 1n, true);
  }
  using publisher = channel.publisher(0);
  using reliable = channel.publisher(2, { reliable: true });
  using subscriber = channel.subscriber(1);
  for (let i = 0; i < 50; i++) {
    send(publisher, "x");
    send(reliable, "y");
    assert.equal(receiveAll(subscriber).length, 2);
  }
});

Deno.test("queues at wild offsets are not written to", () => {
  for (const offset of [0n, 8n, 191n, 193n, 8184n, 8192n, 2n ** 32n + 192n, 2n ** 63n, 2n ** 64n - 2n]) {
    using channel = new LocalChannel({ queueArenaBytes: 8192 });
    using publisher = channel.publisher(0);
    using subscriber = channel.subscriber(1);
    using memory = channel.map();
    memory.view.setBigUint64(channel.offsets.queueIndex + QueueIndex.offsets + 8, offset, true);
    const before = memory.bytes.slice(channel.offsets.queueArena);
    send(publisher, "x");
    assert.deepEqual(memory.bytes.subarray(channel.offsets.queueArena), before);
    assert.deepEqual(receiveAll(subscriber), ["x"]);
  }
});

Deno.test("a control block of random bytes ends nothing in a loop or a crash", () => {
  let seed = 12345;
  const random = () => (seed = Math.imul(seed ^ seed >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0) >>> 0;
  for (let round = 0; round < 60; round++) {
    using channel = new LocalChannel({ numSlots: 1 + round, queueArenaBytes: 4096 });
    using publisher = channel.publisher(0);
    using reliable = channel.publisher(1, { reliable: true });
    using subscriber = channel.subscriber(2, { maxActiveMessages: 3 });
    send(publisher, "x");
    using memory = channel.map();
    for (let i = 0; i < 2000; i++) {
      memory.bytes[Ccb.ordinals + random() % (memory.byteLength - Ccb.ordinals)] = random();
    }
    memory.view.setInt32(Ccb.numBuffers, 1, true);
    for (let i = 0; i < 5; i++) {
      reliable.buffer();
      for (const read of [() => subscriber.readNext(), () => subscriber.readNewest()]) {
        try {
          if (read()) subscriber.release(subscriber.slotId);
        } catch (error) {
          assert(error instanceof ControlBlockError);
        }
      }
      if (publisher.buffer() !== null) publisher.publish(1);
    }
    channel.registry.removePublisher(0);
    channel.registry.removeSubscriber(2, true);
    channel.registry.addSubscriber(3, 5, true);
  }
});

Deno.test("a number of buffers that cannot be harms only those who would need them", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  send(publisher, "x");
  using memory = channel.map();
  memory.view.setInt32(Ccb.numBuffers, -1, true);
  assert.deepEqual(receiveAll(subscriber), [], "its buffer is not there");
  memory.view.setInt32(Ccb.numBuffers, 2 ** 31 - 1, true);
  assert.throws(() => publisher.buffer(), /_1: it is announced, and does not exist/);
  memory.view.setInt32(Ccb.numBuffers, 1, true);
  send(publisher, "y");
  assert.deepEqual(receiveAll(subscriber), ["x", "y"]);
});

Deno.test("messages 2^23 apart, which look alike in the refs word, are told apart", () => {
  using channel = new LocalChannel({ numSlots: 2 });
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  send(publisher, "early");
  assert(subscriber.mayHaveUnread, "message 1 of slot 0 is in the snapshot");
  using memory = channel.map();
  memory.view.setBigUint64(Ccb.ordinals, 2n ** 23n, true);
  send(publisher, "2^23");
  assert.equal(publisher.ordinal, 2 ** 23);
  send(publisher, "2^23 + 1");
  assert.deepEqual(receiveAll(subscriber), ["2^23 + 1"]);
  assert.equal(channel.blocks.totals.drops, 0, "nothing was read before");
  for (let i = 2; i < 10; i++) {
    send(publisher, String(i));
    assert.deepEqual(receiveAll(subscriber), [String(i)]);
  }
});
