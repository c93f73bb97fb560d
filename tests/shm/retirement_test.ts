import assert from "node:assert/strict";
import type { Fd } from "../../ffi/fd.ts";
import { createPacketPipe, readInt32 } from "../../ffi/pipe.ts";
import { RetirementNotifier } from "../../shm/retirement.ts";
import { LocalChannel, receiveAll, send } from "./local_channel.ts";

function readAll(pipe: Fd): number[] {
  const ids: number[] = [];
  for (let id = readInt32(pipe.number); id !== null; id = readInt32(pipe.number)) ids.push(id);
  return ids;
}

Deno.test("a pipe that is full stops nobody, and what it refused comes later, each slot once", () => {
  const [read, write] = createPacketPipe();
  using _read = read, _write = write;
  const notifier = new RetirementNotifier();
  assert(!notifier.wanted);
  notifier.setPipes([write.number]);
  assert(notifier.wanted);
  for (let i = 0; i < 200; i++) notifier.notify(i % 40);
  const before = readAll(read);
  assert.deepEqual(before, Array.from(before, (_, i) => i), "as many as the pipe takes, in order");
  assert(before.length < 40 && notifier.unsent === 40);
  const after: number[] = [];
  while (notifier.unsent > 0) {
    notifier.flush();
    after.push(...readAll(read));
  }
  assert.deepEqual(after.toSorted((a, b) => a - b), Array.from({ length: 40 }, (_, i) => i));
});

Deno.test("a slot is reported when its last reader releases it, an activation never", () => {
  const [read, write] = createPacketPipe();
  using _read = read, _write = write;
  using channel = new LocalChannel();
  using publisher = channel.publisher(0, { reliable: true });
  using one = channel.subscriber(1, { reliable: true });
  using two = channel.subscriber(2);
  for (const subscriber of [one, two]) subscriber.setRetirementPipes([write.number]);
  publisher.publishActivation();
  send(publisher, "x");
  receiveAll(one);
  assert.deepEqual(readAll(read), []);
  receiveAll(two);
  assert.deepEqual(readAll(read), [1]);
});

Deno.test("slots that reading the newest message lets go are reported too", () => {
  const [read, write] = createPacketPipe();
  using _read = read, _write = write;
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1);
  subscriber.setRetirementPipes([write.number]);
  for (let i = 0; i < 4; i++) send(publisher, "x");
  assert(subscriber.readNewest());
  assert.deepEqual(readAll(read), [0, 1, 2]);
  subscriber.release(subscriber.slotId);
  assert.deepEqual(readAll(read), [3]);
});

Deno.test("who finds a message again after reading it counts once, and retires the slot if the others have let go", () => {
  const [read, write] = createPacketPipe();
  using _read = read, _write = write;
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using one = channel.subscriber(1);
  using two = channel.subscriber(2);
  for (const subscriber of [one, two]) subscriber.setRetirementPipes([write.number]);
  send(publisher, "x");
  const time = publisher.timestampNs;
  receiveAll(one);
  for (let i = 0; i < 2; i++) {
    assert(one.find(time));
    one.release(one.slotId);
  }
  assert.deepEqual(readAll(read), []);
  assert(one.find(time));
  receiveAll(two);
  assert.deepEqual(readAll(read), []);
  one.release(one.slotId);
  assert.deepEqual(readAll(read), [0]);
});

Deno.test("slots that a subscriber has no place for are reported when it drops them", () => {
  const [read, write] = createPacketPipe();
  using _read = read, _write = write;
  using channel = new LocalChannel();
  using publisher = channel.publisher(0);
  using subscriber = channel.subscriber(1, { backlog: 2, maxActiveMessages: 2 });
  subscriber.setRetirementPipes([write.number]);
  for (let i = 0; i < 5; i++) send(publisher, "x");
  assert(subscriber.readNext());
  assert.deepEqual([subscriber.slotId, subscriber.dropped, readAll(read)], [3, 3, [0, 1, 2]]);
  assert(subscriber.readNext());
  assert.deepEqual([subscriber.slotId, subscriber.dropped, readAll(read)], [4, 0, []]);
  assert(!subscriber.readNext());
});

Deno.test("a slot that is used again before everybody has read it is reported by its publisher", () => {
  const [read, write] = createPacketPipe();
  using _read = read, _write = write;
  using channel = new LocalChannel({ numSlots: 3 });
  using publisher = channel.publisher(0);
  using _idle = channel.subscriber(1);
  publisher.setRetirementPipes([write.number]);
  for (let i = 0; i < 5; i++) send(publisher, "x");
  assert.deepEqual(readAll(read), [0, 1, 2]);
});
