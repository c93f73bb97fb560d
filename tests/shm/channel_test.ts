import assert from "node:assert/strict";
import { drain } from "../../ffi/eventfd.ts";
import type { Mapping } from "../../ffi/mapping.ts";
import { pollSync } from "../../ffi/poll.ts";
import { readControlBlock } from "../../shm/inspection.ts";
import { Ccb, type ControlBlockOffsets, Prefix, QueueIndex, Slot, SlotMark } from "../../shm/layout.ts";
import { alwaysWritten, LocalChannel, receive, receiveAll, send } from "./local_channel.ts";

Deno.test("messages arrive once, in order, with ordinal and time", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  assert.equal(receive(subscriber), null);
  assert.equal(send(publisher, "one"), 1);
  assert.equal(send(publisher, "two"), 2);
  const published = publisher.timestampNs;
  assert(subscriber.readNext());
  assert.deepEqual([subscriber.ordinal, subscriber.size, subscriber.slotId, subscriber.vchanId], [
    1,
    3,
    0,
    -1,
  ]);
  assert(subscriber.timestampNs > 0n && subscriber.timestampNs <= published);
  assert.equal(subscriber.payload.byteLength, 3);
  assert.equal(subscriber.slotView.byteLength, 256);
  assert.equal(subscriber.slotView, subscriber.slotView, "the view of a slot is made once");
  subscriber.release(subscriber.slotId);
  assert.equal(receive(subscriber), "two");
  assert.equal(receive(subscriber), null);
  assert.deepEqual(channel.blocks.totals, { bytes: 6, messages: 2, maxMessageSize: 3, drops: 0 });
});

Deno.test("the prefix in front of a message is the specification's", () => {
  using channel = new LocalChannel({ numSlots: 3 });
  using publisher = channel.publisher(5, { checksumBytes: 20, metadataBytes: 16 });
  using subscriber = channel.subscriber(1, { checksumBytes: 20, metadataBytes: 16 });
  send(publisher, "first");
  const payload = publisher.buffer()!;
  payload.set(new TextEncoder().encode("second"));
  const prefix = new DataView(payload.buffer, payload.byteOffset - 128, 128);
  assert.equal(publisher.publish(6), 2);
  assert.equal(prefix.getInt32(Prefix.slot, true), 1);
  assert.equal(prefix.getBigUint64(Prefix.messageSize, true), 6n);
  assert.equal(prefix.getBigUint64(Prefix.ordinal, true), 2n);
  assert.equal(prefix.getBigUint64(Prefix.timestamp, true), publisher.timestampNs);
  assert.equal(prefix.getBigUint64(Prefix.flags, true), 0n);
  assert.equal(prefix.getInt32(Prefix.vchan, true), -1);
  assert.deepEqual(
    [prefix.getUint16(Prefix.checksumBytes, true), prefix.getUint16(Prefix.metadataBytes, true)],
    [20, 16],
  );
  assert.deepEqual(receiveAll(subscriber), ["first", "second"]);
});

Deno.test("an unreliable publisher overwrites what is not read, and the subscriber counts what it missed", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  send(publisher, "1");
  assert.equal(receive(subscriber), "1");
  for (let i = 2; i <= 10; i++) send(publisher, String(i));
  const texts: string[] = [];
  let dropped = 0;
  while (subscriber.readNext()) {
    texts.push(new TextDecoder().decode(subscriber.payload));
    dropped += subscriber.dropped;
    subscriber.release(subscriber.slotId);
  }
  assert.deepEqual(texts, ["8", "9", "10"]);
  assert.equal(dropped, 6);
  assert.equal(channel.blocks.totals.drops, 6);
});

Deno.test("a message that is held keeps its bytes, however much is published", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1, { maxActiveMessages: 2 });
  send(publisher, "held");
  assert(subscriber.readNext());
  const { payload, slotId } = subscriber;
  for (let i = 0; i < 100; i++) send(publisher, `later ${i}`);
  assert.equal(new TextDecoder().decode(payload), "held");
  subscriber.release(slotId);
});

Deno.test("a subscriber holds no more messages than it may, and loses none by it", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1, { maxActiveMessages: 2 });
  using trigger = channel.trigger();
  subscriber.setOwnTrigger(trigger.number);
  for (const text of ["a", "b", "c"]) send(publisher, text);
  assert(subscriber.readNext());
  const first = subscriber.slotId;
  assert(subscriber.readNext());
  const second = subscriber.slotId;
  assert(!subscriber.readNext() && subscriber.atLimit && subscriber.active === 2);
  assert(!drain(trigger.number));
  subscriber.release(first);
  assert(drain(trigger.number), "the release wakes the subscriber itself: a read had to wait for it");
  assert(subscriber.readNext());
  assert.deepEqual([subscriber.ordinal, subscriber.dropped], [3, 0]);
  subscriber.release(subscriber.slotId);
  subscriber.release(second);
  assert(!drain(trigger.number), "nothing waited for these");
  subscriber.release(second);
  assert.equal(subscriber.active, 0, "a second release of a message does nothing");
});

Deno.test("a subscriber that comes later reads what is there", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0);
  for (let i = 1; i <= 3; i++) send(publisher, String(i));
  using subscriber = channel.subscriber(7);
  assert.deepEqual(receiveAll(subscriber), ["1", "2", "3"]);
});

Deno.test("publishing wakes every subscriber, and a release every reliable publisher", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0, { reliable: true });
  using subscriber = channel.subscriber(1, { reliable: true });
  const triggers = [channel.trigger(), channel.trigger()], back = channel.trigger();
  publisher.setSubscriberTriggers(triggers.map((fd) => alwaysWritten(fd.number)));
  subscriber.setPublisherTriggers([alwaysWritten(back.number)]);
  send(publisher, "x");
  assert.deepEqual(pollSync(triggers.map((fd) => fd.number), 0), triggers.map((fd) => fd.number));
  assert(subscriber.readNext());
  assert(!drain(back.number));
  subscriber.release(subscriber.slotId);
  assert(drain(back.number));
  assert(!subscriber.readNext());
  assert(
    drain(back.number),
    "the first time that there is nothing to read: a publisher may wait for a subscriber",
  );
  assert(!subscriber.readNext());
  assert(!drain(back.number), "but only the first time");
});

Deno.test("an end that leaves its channel says when its last message is released, and wakes nobody any more", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0, { reliable: true });
  using subscriber = channel.subscriber(1, { reliable: true, maxActiveMessages: 2 });
  const own = channel.trigger(), back = channel.trigger();
  subscriber.setOwnTrigger(own.number);
  subscriber.setPublisherTriggers([alwaysWritten(back.number)]);
  for (const text of ["a", "b", "c"]) send(publisher, text);
  const slots = [1, 2].map(() => subscriber.readNext() ? subscriber.slotId : -1);
  assert(!subscriber.readNext());
  let times = 0;
  subscriber.leave(() => times++);
  subscriber.release(slots[1]);
  assert.equal(times, 0);
  subscriber.release(slots[0]);
  assert.equal(times, 1);
  assert(!drain(own.number) && !drain(back.number));
});

Deno.test("a reliable publisher waits for a subscriber, then for room, and loses nothing", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0, { reliable: true });
  assert.equal(publisher.buffer(), null);
  using subscriber = channel.subscriber(1, { reliable: true });
  const received: string[] = [];
  let sent = 0;
  for (let round = 0; round < 50; round++) {
    while (send(publisher, String(sent)) !== null) sent++;
    assert(sent - received.length <= 4);
    for (let i = 0; i <= round % 4; i++) {
      const text = receive(subscriber);
      if (text !== null) received.push(text);
    }
  }
  received.push(...receiveAll(subscriber));
  assert.deepEqual(received, Array.from({ length: sent }, (_, i) => String(i)));
  assert.equal(channel.blocks.totals.drops, 0);
});

Deno.test("a message held by a reliable subscriber holds up only its slot", () => {
  using channel = new LocalChannel({ numSlots: 3 });
  using publisher = channel.publisher(0, { reliable: true });
  using subscriber = channel.subscriber(1, { reliable: true, maxActiveMessages: 2 });
  send(publisher, "held");
  assert(subscriber.readNext());
  const held = subscriber.slotId, bytes = subscriber.payload;
  for (let i = 0; i < 20; i++) {
    assert.notEqual(send(publisher, String(i)), null);
    assert.equal(receive(subscriber), String(i));
  }
  assert.equal(new TextDecoder().decode(bytes), "held");
  subscriber.release(held);
});

Deno.test("two reliable subscribers of different pace lose nothing (specification 9.2, 33)", () => {
  for (const told of [false, true]) {
    using channel = new LocalChannel({ numSlots: 8 });
    using publisher = channel.publisher(0, { reliable: true });
    using fast = channel.subscriber(1, { reliable: true });
    using slow = channel.subscriber(2, { reliable: true });
    if (told) publisher.subscriberKinds.setUnreliable([], channel.counters.numSubUpdates);
    const fastRead: string[] = [], slowRead: string[] = [];
    let sent = 0;
    for (let round = 0; round < 200; round++) {
      while (send(publisher, String(sent)) !== null) sent++;
      fastRead.push(...receiveAll(fast));
      for (let i = 0; i < round % 3; i++) {
        const text = receive(slow);
        if (text !== null) slowRead.push(text);
      }
    }
    slowRead.push(...receiveAll(slow));
    const all = Array.from({ length: sent }, (_, i) => String(i));
    assert(sent > 150);
    assert.deepEqual(fastRead.concat(receiveAll(fast)), all);
    assert.deepEqual(slowRead, all);
    assert.equal(channel.blocks.totals.drops, 0);
  }
});

Deno.test("an unreliable subscriber that reads nothing holds no reliable publisher up", () => {
  using channel = new LocalChannel({ numSlots: 5 });
  using publisher = channel.publisher(0, { reliable: true });
  using _idle = channel.subscriber(1);
  for (let i = 0; i < 20; i++) assert.notEqual(send(publisher, String(i)), null, `message ${i}`);

  using reader = channel.subscriber(2, { reliable: true });
  receiveAll(reader);
  for (let i = 20; i < 40; i++) {
    assert.notEqual(send(publisher, String(i)), null, `message ${i} with one reliable subscriber`);
    assert.equal(receive(reader), String(i));
  }
  using other = channel.subscriber(3, { reliable: true });
  receiveAll(other);
  assert(publisher.subscriberKinds.wanted);
  publisher.subscriberKinds.setUnreliable([1], channel.counters.numSubUpdates);
  publisher.subscriberKinds.trust([2, 3], channel.counters.numSubUpdates);
  assert(!publisher.subscriberKinds.wanted);
  for (let i = 40; i < 60; i++) {
    assert.notEqual(send(publisher, String(i)), null, `message ${i} with two`);
    assert.equal(receive(reader), String(i));
    assert.equal(receive(other), String(i));
  }
});

Deno.test("what was told of subscribers does not hold for those that came since", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0, { reliable: true });
  using _one = channel.subscriber(1, { reliable: true });
  using _two = channel.subscriber(2, { reliable: true });
  const idle = channel.subscriber(3);
  publisher.subscriberKinds.setUnreliable([3], channel.counters.numSubUpdates);
  idle[Symbol.dispose]();
  channel.removeSubscriber(3, false);
  using reborn = channel.subscriber(3, { reliable: true });
  let sent = 0;
  while (send(publisher, String(sent)) !== null) sent++;
  receiveAll(_one);
  receiveAll(_two);
  assert.equal(publisher.buffer(), null, "subscriber 3 is reliable now, and has read nothing");
  assert.deepEqual(receiveAll(reborn), ["0", "1", "2", "3"]);
  assert.notEqual(publisher.buffer(), null);
});

Deno.test("a reliable subscriber that dies with messages unread and held holds nobody up once it is cleaned up", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0, { reliable: true });
  using alive = channel.subscriber(1, { reliable: true });
  const dead = channel.subscriber(2, { reliable: true });
  let sent = 0;
  while (send(publisher, String(sent)) !== null) sent++;
  assert(dead.readNext());
  assert.deepEqual(receiveAll(alive), ["0", "1", "2", "3"]);
  assert.equal(publisher.buffer(), null);
  assert.deepEqual(
    channel.removeSubscriber(2, true),
    [0],
    "the slot it held is retired: the other has released it",
  );
  publisher.subscriberKinds.trust([1], channel.counters.numSubUpdates);
  for (let i = 0; i < 4; i++) assert.notEqual(send(publisher, "again"), null);
  assert.equal(publisher.buffer(), null);
  dead[Symbol.dispose]();
  assert.equal(receiveAll(alive).length, 4);
});

Deno.test("removing a subscriber retires nothing that another has not read", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0, { reliable: true });
  using slow = channel.subscriber(1, { reliable: true });
  const gone = channel.subscriber(2, { reliable: true });
  let sent = 0;
  while (send(publisher, String(sent)) !== null) sent++;
  assert.equal(receive(gone), "0");
  assert(gone.readNext());
  assert.deepEqual(channel.removeSubscriber(2, true), []);
  gone[Symbol.dispose]();
  assert.equal(publisher.buffer(), null);
  assert.deepEqual(receiveAll(slow), ["0", "1", "2", "3"]);
});

Deno.test("a reliable publisher leaves alone what another has made visible and not yet announced to all", () => {
  using channel = new LocalChannel({ numSlots: 2 });
  using publisher = channel.publisher(0, { reliable: true });
  using reader = channel.subscriber(1, { reliable: true });
  using _other = channel.subscriber(2, { reliable: true });
  publisher.subscriberKinds.trust([1, 2], channel.counters.numSubUpdates);
  send(publisher, "a");
  send(publisher, "b");
  assert.equal(receive(reader), "a");
  // As if a C++ publisher of "a" had stopped between the two bits: 1 has read it, 2 has no bit as yet.
  using memory = channel.map();
  const { view } = memory, { available, availableStride, queueIndex } = channel.offsets;
  const bits = available + availableStride * 2 + 8, flags = Ccb.slots + Slot.flags;
  const active = queueIndex + QueueIndex.activePublishers + 4 * 9;
  view.setUint8(bits, view.getUint8(bits) & ~1);
  const marked = view.getUint32(flags, true);
  view.setUint32(flags, marked & SlotMark.flags, true);
  view.setBigUint64(Ccb.ordinals, view.getBigUint64(Ccb.ordinals, true) + 1n, true);
  view.setUint32(active, 1, true);
  assert.equal(publisher.buffer(), null);
  view.setUint32(active, 0, true);
  assert.notEqual(publisher.buffer(), null, "it has left, or its server has found it dead");
});

/** Clears all bits of a subscriber, as the reference's does in its first read; returns what puts them back. */
function clearBits(memory: Mapping, { available, availableStride }: ControlBlockOffsets, id: number) {
  const at = available + availableStride * id + 8, before = memory.view.getBigUint64(at, true);
  memory.view.setBigUint64(at, 0n, true);
  return () => memory.view.setBigUint64(at, before, true);
}

Deno.test("a subscriber that clears all its bits before its first message has not read those there are", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using publisher = channel.publisher(0, { reliable: true });
  using one = channel.subscriber(1, { reliable: true });
  using memory = channel.map();
  let sent = 0;
  const fill = () => {
    for (; send(publisher, String(sent)) !== null; sent++);
  };
  fill();
  const putBack = clearBits(memory, channel.offsets, 1);
  assert.equal(publisher.buffer(), null, "nobody has read a message");
  putBack();
  assert.deepEqual(receiveAll(one), ["0", "1", "2", "3"]);
  fill();
  assert.equal(sent, 8, "all have read all that there was");

  // What was there before another comes, and was read by all, may be overwritten though that one has not read it.
  assert.deepEqual(receiveAll(one), ["4", "5", "6", "7"]);
  using two = channel.subscriber(2, { reliable: true });
  const putBackToo = clearBits(memory, channel.offsets, 2);
  fill();
  assert.deepEqual(receiveAll(one), ["8", "9", "10", "11"]);
  assert.equal(publisher.buffer(), null, "8 is for the new one");
  putBackToo();
  assert.deepEqual(receiveAll(two), ["8", "9", "10", "11"]);
  assert.notEqual(publisher.buffer(), null);
});

Deno.test("a doubt that nothing else ends is ended by time", async () => {
  using channel = new LocalChannel({ numSlots: 2 });
  using one = channel.publisher(0, { reliable: true });
  using reader = channel.subscriber(1, { reliable: true });
  send(one, "a");
  send(one, "b");
  receiveAll(reader);
  using two = channel.publisher(2, { reliable: true });
  assert.equal(two.buffer(), null, "it has seen no message that was for the reader");
  while (two.buffer() === null) await new Promise((resolve) => setTimeout(resolve, 10));
});

Deno.test("a reliable publisher does not wait for another that is at work elsewhere", () => {
  using channel = new LocalChannel({ numSlots: 2 });
  using publisher = channel.publisher(0, { reliable: true });
  using reader = channel.subscriber(1, { reliable: true });
  send(publisher, "a");
  send(publisher, "b");
  assert.equal(receive(reader), "a");
  using memory = channel.map();
  const active = channel.offsets.queueIndex + QueueIndex.activePublishers + 4 * 9;
  memory.view.setBigUint64(Ccb.ordinals, 4n, true);
  memory.view.setUint32(active, 1, true);
  assert.notEqual(publisher.buffer(), null);
});

Deno.test("a message that another publisher finishes late is not counted as dropped", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  using memory = channel.map();
  const { view } = memory, active = channel.offsets.queueIndex + QueueIndex.activePublishers + 4 * 9;
  const dropsOf = (text: string) => {
    assert.equal(receive(subscriber), text);
    return subscriber.dropped;
  };
  send(publisher, "1");
  assert.equal(dropsOf("1"), 0);
  view.setUint32(active, 1, true); // publisher 9 has number 2, and goes on after number 3
  view.setBigUint64(Ccb.ordinals, 3n, true);
  send(publisher, "3");
  assert.equal(dropsOf("3"), 0);
  view.setBigUint64(Ccb.ordinals, 2n, true);
  send(publisher, "2, late");
  view.setBigUint64(Ccb.ordinals, 4n, true);
  view.setUint32(active, 0, true);
  assert.equal(dropsOf("2, late"), 0);
  send(publisher, "4");
  assert.equal(dropsOf("4"), 0);
  assert.equal(channel.blocks.totals.drops, 0);

  view.setUint32(active, 1, true); // publisher 9 has number 5, and dies
  view.setBigUint64(Ccb.ordinals, 6n, true);
  send(publisher, "6");
  assert.equal(dropsOf("6"), 0);
  channel.registry.clearHazard(9);
  send(publisher, "7");
  assert.equal(dropsOf("7"), 1);
  assert.equal(channel.blocks.totals.drops, 1);
});

Deno.test("an activation message takes an ordinal and is read by those who ask", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0, { reliable: true });
  assert(!channel.blocks.isActivated());
  assert.equal(publisher.publishActivation(), 1, "even before there is a subscriber");
  assert(channel.blocks.isActivated());
  using asks = channel.subscriber(1, { reliable: true, passActivation: true });
  using asksNot = channel.subscriber(2, { reliable: true });
  assert.equal(send(publisher, "message"), 2);
  assert(asks.readNext() && asks.isActivation && asks.ordinal === 1 && asks.size === 1);
  asks.release(asks.slotId);
  assert.equal(receive(asks), "message");
  assert(!asks.isActivation);
  assert.deepEqual(receiveAll(asksNot), ["message"]);
  assert.deepEqual(channel.blocks.totals, { bytes: 7, messages: 2, maxMessageSize: 7, drops: 0 });
  const { slots } = readControlBlock(channel.blocks.ccbFd, channel.blocks.bcbFd, 8);
  assert(slots[0].activation && slots[0].state === "retired");
});

Deno.test("reading the newest message lets the older ones go", () => {
  using channel = new LocalChannel({ numSlots: 6 });
  using publisher = channel.publisher(0, { reliable: true });
  using subscriber = channel.subscriber(1, { reliable: true });
  const back = channel.trigger();
  subscriber.setPublisherTriggers([alwaysWritten(back.number)]);
  let sent = 0;
  while (send(publisher, String(sent)) !== null) sent++;
  assert(subscriber.readNewest());
  assert.equal(new TextDecoder().decode(subscriber.payload), "5");
  assert(drain(back.number), "the older slots are free now");
  assert.equal(subscriber.dropped, 0);
  subscriber.release(subscriber.slotId);
  assert(!subscriber.readNewest() && !subscriber.readNext() && !subscriber.mayHaveUnread);
  for (let i = 0; i < 6; i++) assert.notEqual(send(publisher, "more"), null);
  assert.equal(receiveAll(subscriber).length, 6);
});

Deno.test("whether something is unread can be asked without reading it", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  send(publisher, "before");
  using subscriber = channel.subscriber(1);
  assert(subscriber.mayHaveUnread && subscriber.mayHaveUnread);
  assert.equal(receive(subscriber), "before");
  assert(!subscriber.mayHaveUnread && !subscriber.readNext() && !subscriber.mayHaveUnread);
  send(publisher, "x");
  assert(subscriber.mayHaveUnread);
  assert.equal(receive(subscriber), "x");
  assert(!subscriber.mayHaveUnread);
});

Deno.test("a publisher that was taken for gone knows that its slot is not its own", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  assert(publisher.ownsSlot);
  channel.registry.removePublisher(0);
  assert(!publisher.ownsSlot);
  using reliable = channel.publisher(1, { reliable: true });
  assert(reliable.ownsSlot, "it holds none");
});

Deno.test("an activation is nothing unread, and what comes after it is", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0, { reliable: true });
  using subscriber = channel.subscriber(1, { reliable: true });
  publisher.publishActivation();
  assert(!subscriber.mayHaveUnread);
  send(publisher, "x");
  assert(subscriber.mayHaveUnread);
  assert.equal(receive(subscriber), "x");
  using curious = channel.subscriber(2, { passActivation: true });
  publisher.publishActivation();
  assert(curious.mayHaveUnread && !subscriber.mayHaveUnread);
});

Deno.test("a virtual channel's subscribers get its messages, and the multiplexer's all", () => {
  using channel = new LocalChannel({ numSlots: 16 });
  using one = channel.publisher(0, { vchanId: 1 });
  using two = channel.publisher(1, { vchanId: 2 });
  using subOne = channel.subscriber(2, { vchanId: 1 });
  using subTwo = channel.subscriber(3, { vchanId: 2 });
  using all = channel.subscriber(4, { maxActiveMessages: 2 });
  assert.deepEqual([channel.blocks.numSubscribers(1), channel.blocks.numSubscribers()], [2, 1]);
  assert.equal(send(one, "1a"), 1);
  assert.equal(send(two, "2a"), 1);
  assert.equal(send(one, "1b"), 2);
  assert.deepEqual(receiveAll(subOne), ["1a", "1b"]);
  assert.deepEqual(receiveAll(subTwo), ["2a"]);
  const next = () => {
    assert(all.readNext());
    all.release(all.slotId);
    return [all.vchanId, all.ordinal, all.dropped];
  };
  assert.deepEqual(next(), [1, 1, 0]);
  assert.deepEqual(next(), [2, 1, 0]);
  assert.deepEqual(receiveAll(all), ["1b"]);
  assert.deepEqual([
    channel.blocks.nextOrdinal(1),
    channel.blocks.nextOrdinal(2),
    channel.blocks.nextOrdinal(),
  ], [
    3,
    2,
    1,
  ]);
});

Deno.test("a reliable publisher of a virtual channel does not wait for subscribers of another", () => {
  using channel = new LocalChannel({ numSlots: 4 });
  using one = channel.publisher(0, { vchanId: 1, reliable: true });
  using two = channel.publisher(1, { vchanId: 2, reliable: true });
  using subOne = channel.subscriber(2, { vchanId: 1, reliable: true });
  using subTwo = channel.subscriber(3, { vchanId: 2, reliable: true });
  two.subscriberKinds.trust([2, 3], channel.counters.numSubUpdates);
  for (let i = 0; i < 20; i++) {
    assert.notEqual(send(one, `one ${i}`), null);
    assert.equal(receive(subOne), `one ${i}`);
  }
  assert.notEqual(send(two, "two"), null);
  assert.equal(receive(subTwo), "two");
});

Deno.test("the ends refuse what cannot be", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  const max = publisher.slotBytes;
  for (const size of [0, -1, max + 1, NaN]) {
    assert.throws(() => publisher.publish(size), /a message has 1 to 256 bytes/);
  }
  assert.throws(() => channel.publisher(1024), /user id 1024 is not 0 to 1023/);
  assert.throws(() => channel.publisher(1, { vchanId: 1023 }), /virtual channel 1023 is not -1 to 1022/);
  assert.throws(() => channel.subscriber(1, { maxActiveMessages: 0 }), /holding 0 messages: 1 is the least/);
  using placeholder = new LocalChannel({ numSlots: 0 });
  assert.throws(() => placeholder.subscriber(0), /is a placeholder/);
  const closed = channel.publisher(2);
  closed.close();
  closed.close();
  assert.throws(() => closed.buffer(), /the publisher is closed/);
  assert.throws(() => closed.publish(1), /get a buffer first/);
  const done = channel.subscriber(3);
  done[Symbol.dispose]();
  assert.throws(() => done.readNext(), /the subscriber is closed/);
});

Deno.test("a publisher that closes gives its slot back to the others", () => {
  using channel = new LocalChannel({ numSlots: 2 });
  const first = channel.publisher(0);
  using second = channel.publisher(1);
  assert.deepEqual([first.slotId, second.slotId], [0, 1]);
  first.close();
  using third = channel.publisher(2);
  assert.equal(third.slotId, 0);
});

Deno.test("where no slot is to be had, an unreliable publisher has no buffer until there is one", () => {
  using channel = new LocalChannel({ numSlots: 1 });
  const first = channel.publisher(0);
  using second = channel.publisher(1);
  assert.equal(second.slotId, -1);
  assert.equal(second.buffer(), null);
  first.close();
  assert.notEqual(second.buffer(), null);
});
