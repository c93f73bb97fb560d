import assert from "node:assert/strict";
import { openNamed, truncate, unlinkNamed } from "../../ffi/memory_object.ts";
import { bufferName, splitObjectName, splitPath, unlinkBuffers } from "../../shm/buffer_names.ts";
import { ControlBlockError } from "../../shm/control_blocks.ts";
import { Slot } from "../../shm/layout.ts";
import { LocalChannel, receive, receiveAll, send } from "./local_channel.ts";

Deno.test("message buffers and parts of split buffers have the names of the specification", () => {
  assert.equal(bufferName(1353140369708n, "/chan/x", 0), "subspace_1353140369708_.chan.x_0");
  const prefix = splitPath(123n, "/a", 0, "prefix"), slot = splitPath(123n, "/a", 0, { slot: 0 });
  assert.deepEqual([prefix, slot], ["/tmp/subspace_123_.a_0_prefix", "/tmp/subspace_123_.a_0_slot_0"]);
  assert.equal(splitObjectName(prefix), "subspace_sb_ad70910bafa053f1");
  assert.equal(splitObjectName(slot), "subspace_sb_065e21e6f22bbb86");
});

Deno.test("the first publisher makes the buffer: its size and mode are the specification's", () => {
  using channel = new LocalChannel({ numSlots: 5 });
  using _publisher = channel.publisher(0);
  using fd = openNamed(bufferName(channel.sessionId, channel.resolvedName, 0))!;
  assert.deepEqual([fd.stat().bytes, fd.stat().mode & 0o777], [1600, 0o777]);
  assert.deepEqual([channel.blocks.numBuffers, channel.blocks.bufferBytes(0)], [1, 1600]);
});

Deno.test("a publisher that comes later uses the buffer that is there, or appends a larger one", () => {
  using channel = new LocalChannel({ numSlots: 5 });
  using first = channel.publisher(0);
  using smaller = channel.publisher(1, { slotBytes: 100 });
  assert.deepEqual([smaller.slotBytes, channel.blocks.numBuffers], [256, 1]);
  using larger = channel.publisher(2, { slotBytes: 1000 });
  assert.deepEqual([larger.slotBytes, channel.blocks.numBuffers, channel.blocks.bufferBytes(1)], [
    1024,
    2,
    5 * 1088,
  ]);
  assert.equal(first.buffer()!.length, 1024, "the first one sees it when it takes its next buffer");
});

Deno.test("slots grow in mid-stream, and no message is lost or torn", () => {
  using channel = new LocalChannel({ numSlots: 6, slotBytes: 64 });
  using publisher = channel.publisher(0, { reliable: true });
  using late = channel.publisher(1, { reliable: true });
  using subscriber = channel.subscriber(2, { reliable: true });
  const sent: string[] = [];
  for (let i = 0; i < 40; i++) {
    const text = String.fromCharCode(97 + i % 26).repeat(1 + i * i * 5);
    assert.notEqual(send(i % 3 === 0 ? late : publisher, text), null);
    sent.push(text);
    if (i % 2 === 1) assert.deepEqual(receiveAll(subscriber), sent.slice(i - 1, i + 1));
  }
  assert(channel.blocks.numBuffers > 5);
  assert(publisher.slotBytes >= sent.at(-1)!.length);
  assert.equal(channel.blocks.totals.drops, 0);
});

Deno.test("a publisher of a fixed size refuses to grow, with the reference's words", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0, { fixedSize: true });
  assert.throws(
    () => publisher.buffer(257),
    /^RangeError: Channel \/test\/channel is fixed size at 256 bytes; can't increase it to 257 bytes$/,
  );
  assert.equal(publisher.buffer(256)!.length, 256);
  using other = channel.publisher(1);
  assert.throws(() => other.buffer(2 ** 31), /2147483584 is the limit/);
});

Deno.test("a buffer that no slot uses is unmapped, and views of it are empty; one with a message held is not", () => {
  using channel = new LocalChannel({ numSlots: 3, slotBytes: 64 });
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1, { maxActiveMessages: 2 });
  send(publisher, "small");
  const area = publisher.buffer()!;
  assert(subscriber.readNext());
  const held = subscriber.slotId, bytes = subscriber.payload;
  for (let i = 0; i < 8; i++) {
    send(publisher, "x".repeat(500));
    receiveAll(subscriber);
  }
  assert.equal(channel.blocks.bufferRefs(0), 1);
  assert.equal(new TextDecoder().decode(bytes), "small");
  assert.equal(area.length, 64);
  subscriber.release(held);
  for (let i = 0; i < 8; i++) {
    send(publisher, "x".repeat(500));
    receiveAll(subscriber);
  }
  assert.equal(channel.blocks.bufferRefs(0), 0);
  assert.deepEqual([bytes.length, area.length], [0, 0], "both ends have unmapped it");
});

Deno.test("the views of a closed end are empty", () => {
  using channel = new LocalChannel();
  const publisher = channel.publisher(0), subscriber = channel.subscriber(1);
  send(publisher, "x");
  const area = publisher.buffer()!;
  assert(subscriber.readNext());
  const { payload } = subscriber;
  publisher.close();
  subscriber[Symbol.dispose]();
  assert.deepEqual([area.length, payload.length], [0, 0]);
});

Deno.test("a buffer without a length is waited for a moment, then refused in words", () => {
  using channel = new LocalChannel();
  const name = bufferName(channel.sessionId, channel.resolvedName, 0);
  using fd = openNamed(name, { create: true })!;
  try {
    assert.throws(() => channel.publisher(0), new RegExp(`no length, .* has died; remove /dev/shm/${name}`));
    assert.equal(channel.blocks.numBuffers, 0);
    truncate(fd, 1000);
    assert.throws(() => channel.publisher(0), ControlBlockError, "1000 bytes are not 8 slots");
    truncate(fd, 8 * (128 + 64));
    using publisher = channel.publisher(0, { slotBytes: 100 });
    assert.equal(publisher.slotBytes, 128);
  } finally {
    unlinkNamed(name);
  }
});

Deno.test("a message whose buffer cannot be had is left, and the others are read", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  send(publisher, "lost from sight");
  send(publisher, "here");
  using memory = channel.map();
  const index = 14728 + Slot.bufferIndex;
  memory.view.setInt16(index, 900, true);
  assert.deepEqual(receiveAll(subscriber), ["here"]);
  assert(!subscriber.readNewest());
  memory.view.setInt16(index, 0, true);
  send(publisher, "next");
  assert.equal(receive(subscriber), "lost from sight");
});

Deno.test("buffers are removed by name, as many as there are", () => {
  using channel = new LocalChannel({ numSlots: 2, slotBytes: 64 });
  using publisher = channel.publisher(0);
  publisher.buffer(100);
  publisher.buffer(200);
  assert.equal(unlinkBuffers(channel.sessionId, channel.resolvedName, channel.blocks.numBuffers + 3), 3);
  assert.equal(unlinkBuffers(channel.sessionId, channel.resolvedName, 3), 0);
});
