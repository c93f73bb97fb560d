/** What holds between a client and any server: the same cases run against ours, in this process, and against the C++ one. */

import assert from "node:assert/strict";
import { type Client, ClosedError, type Publisher, RequestError, type Subscriber } from "../../mod.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (text: string) => new TextEncoder().encode(text);

/** Reads everything there is, and releases it. */
export function readAll(subscriber: Subscriber): string[] {
  const all: string[] = [];
  for (let message = subscriber.read(); message !== null; message = subscriber.read()) {
    all.push(text(message.data));
    message.release();
  }
  return all;
}

/** Waits until a condition holds; every look yields to the event loop. */
export async function eventually(what: string, condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 30_000; !condition();) {
    if (Date.now() > deadline) throw new Error(`still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

function publishAll(publisher: Publisher, count: number, from = 0): string[] {
  const all = Array.from({ length: count }, (_, i) => String(from + i));
  for (const message of all) assert(publisher.publish(bytes(message)));
  return all;
}

/** Name of a case, and what is done with a client on a server of its own. */
export const cases: Record<string, (client: Client, connect: () => Promise<Client>) => Promise<void>> = {
  async "a message is read once, as it was written, with its number and its time"(client) {
    const publisher = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
    const subscriber = await client.createSubscriber("/a");
    assert.equal(subscriber.read(), null);
    const buffer = publisher.getBuffer()!;
    assert.equal(buffer.length, 64);
    buffer.set(bytes("hello"));
    assert(publisher.publish(5));
    assert.equal(publisher.ordinal, 1);
    {
      using message = subscriber.read()!;
      assert.equal(text(message.data), "hello");
      assert.equal(message.ordinal, 1);
      assert(message.timestampNs > 0n && message.held);
    }
    assert.equal(subscriber.read(), null);
    assert.deepEqual([...publishAll(publisher, 5)], readAll(subscriber));
    assert.throws(() => publisher.publish(5), /no buffer was asked for/);
    publisher.getBuffer();
    assert.throws(() => publisher.publish(65), RangeError);
  },

  async "two clients exchange messages both ways"(client, connect) {
    await using other = await connect();
    const there = await client.createPublisher("/there", { slotBytes: 64, numSlots: 8 });
    const back = await other.createPublisher("/back", { slotBytes: 64, numSlots: 8 });
    const here = await client.createSubscriber("/back");
    const yonder = await other.createSubscriber("/there");
    for (let i = 0; i < 100; i++) {
      there.publish(bytes(`ping ${i}`));
      assert(await yonder.wait());
      assert.deepEqual(readAll(yonder), [`ping ${i}`]);
      back.publish(bytes(`pong ${i}`));
      assert(await here.wait());
      assert.deepEqual(readAll(here), [`pong ${i}`]);
    }
  },

  async "a subscriber may come before the first publisher"(client, connect) {
    const subscriber = await client.createSubscriber("/early", { reliable: true });
    assert.equal(subscriber.numSlots, 0);
    assert.equal(subscriber.read(), null);
    assert.equal(await subscriber.wait({ timeoutMs: 1 }), false);
    const waiting = subscriber.wait();
    await using other = await connect();
    const publisher = await other.createPublisher("/early", { slotBytes: 64, numSlots: 8, reliable: true });
    publisher.publish(bytes("first"));
    assert(await waiting);
    assert.deepEqual(readAll(subscriber), ["first"]);
    assert.equal(subscriber.numSlots, 8);
  },

  async "a late subscriber reads what is there still"(client) {
    const publisher = await client.createPublisher("/late", { slotBytes: 64, numSlots: 16 });
    const sent = publishAll(publisher, 5);
    assert.deepEqual(readAll(await client.createSubscriber("/late")), sent);
  },

  async "a slow subscriber of an unreliable channel misses messages, and is told how many"(client) {
    const publisher = await client.createPublisher("/lossy", { slotBytes: 64, numSlots: 8 });
    const subscriber = await client.createSubscriber("/lossy");
    publishAll(publisher, 1);
    readAll(subscriber);
    publishAll(publisher, 100, 1);
    const read = readAll(subscriber);
    assert.equal(read.at(-1), "100");
    assert.equal(read.length + subscriber.drops, 100);
    assert(subscriber.drops > 0);
  },

  async "a newcomer can read just the newest message"(client) {
    const publisher = await client.createPublisher("/newest", { slotBytes: 64, numSlots: 16 });
    const subscriber = await client.createSubscriber("/newest");
    publishAll(publisher, 10);
    {
      using message = subscriber.readNewest()!;
      assert.equal(text(message.data), "9");
    }
    assert.equal(subscriber.readNewest(), null);
    assert.equal(subscriber.read(), null);
    assert.equal(await subscriber.wait({ timeoutMs: 1 }), false);
    publishAll(publisher, 1);
    assert.deepEqual(readAll(subscriber), ["0"]);
  },

  async "a reliable publisher waits until its subscriber has read"(client, connect) {
    await using other = await connect();
    const publisher = await client.createPublisher("/safe", { slotBytes: 64, numSlots: 4, reliable: true });
    assert.equal(publisher.getBuffer(), null, "nobody subscribes");
    assert.equal(publisher.publish(bytes("x")), false);
    const subscriber = await other.createSubscriber("/safe", { reliable: true });
    assert(await publisher.wait());
    let sent = 0;
    while (publisher.publish(bytes(String(sent)))) sent++;
    assert(sent >= 2 && sent <= 4);
    assert.equal(await publisher.wait({ timeoutMs: 1 }), false);
    assert.equal(publisher.waitSync({ timeoutMs: 1 }), false);
    const waiting = publisher.wait();
    using message = subscriber.read()!;
    assert.equal(text(message.data), "0");
    message.release();
    assert(await waiting);
    assert(publisher.publish(bytes(String(sent++))));
    assert.deepEqual(readAll(subscriber), Array.from({ length: sent - 1 }, (_, i) => String(i + 1)));
  },

  async "an unreliable subscriber does not hold a reliable publisher up"(client) {
    const publisher = await client.createPublisher("/mixed", { slotBytes: 64, numSlots: 8, reliable: true });
    const reliable = await client.createSubscriber("/mixed", { reliable: true });
    const slow = await client.createSubscriber("/mixed");
    for (let i = 0; i < 100; i++) {
      await publisher.send(bytes(String(i)));
      assert.deepEqual(readAll(reliable), [String(i)]);
    }
    assert(readAll(slow).length < 100);
  },

  async "two reliable subscribers both get everything"(client, connect) {
    await using other = await connect();
    const count = 2000;
    const publisher = await client.createPublisher("/both", { slotBytes: 64, numSlots: 16, reliable: true });
    const subscribers = [
      await client.createSubscriber("/both", { reliable: true }),
      await other.createSubscriber("/both", { reliable: true }),
    ];
    const reading = subscribers.map(async (subscriber) => {
      let next = 0;
      for await (const message of subscriber) {
        assert.equal(text(message.data), String(next++));
        if (next === count) break;
      }
      return subscriber.drops;
    });
    for (let i = 0; i < count; i++) await publisher.send(bytes(String(i)));
    assert.deepEqual(await Promise.all(reading), [0, 0]);
  },

  async "slots grow in mid-stream, under messages that are held"(client, connect) {
    await using other = await connect();
    const publisher = await client.createPublisher("/grow", { slotBytes: 1, numSlots: 8 });
    const subscriber = await other.createSubscriber("/grow", { maxActiveMessages: 2 });
    publisher.publish(bytes("held"));
    using held = subscriber.read()!;
    for (let size = 1; size <= 1 << 20; size *= 2) {
      publisher.publish(new Uint8Array(size).fill(size % 251));
      using message = subscriber.read()!;
      assert.equal(message.data.length, size);
      assert(message.data[0] === size % 251 && message.data[size - 1] === size % 251);
    }
    assert.equal(text(held.data), "held");
    assert(publisher.slotBytes >= 1 << 20);
    const second = await other.createPublisher("/grow", { slotBytes: 64, numSlots: 8 });
    second.publish(bytes("small"));
    assert.deepEqual(readAll(subscriber), ["small"]);
  },

  async "slots of a fixed size do not grow"(client) {
    const publisher = await client.createPublisher("/fixed", { slotBytes: 64, numSlots: 4, fixedSize: true });
    assert.throws(() => publisher.getBuffer(65), /fixed size/);
    assert(publisher.publish(new Uint8Array(64)));
  },

  async "waits end with the time, with a message, with a signal and with the subscriber"(client) {
    const publisher = await client.createPublisher("/wait", { slotBytes: 64, numSlots: 8 });
    const subscriber = await client.createSubscriber("/wait");
    assert.equal(await subscriber.wait({ timeoutMs: 1 }), false);
    assert.equal(subscriber.waitSync({ timeoutMs: 1 }), false);
    const waits = [subscriber.wait(), subscriber.wait({ timeoutMs: 60_000 })];
    publisher.publish(bytes("x"));
    assert.deepEqual(await Promise.all(waits), [true, true]);
    assert(subscriber.waitSync());
    assert.deepEqual(readAll(subscriber), ["x"]);
    const abort = new AbortController();
    const aborted = subscriber.wait({ signal: abort.signal });
    abort.abort(new Error("enough"));
    await assert.rejects(aborted, /enough/);
    const closed = subscriber.wait();
    await subscriber.close();
    assert.equal(await closed, false);
  },

  async "no more messages are held than agreed, and a release makes room"(client) {
    const publisher = await client.createPublisher("/held", { slotBytes: 64, numSlots: 16 });
    const subscriber = await client.createSubscriber("/held", { maxActiveMessages: 2 });
    publishAll(publisher, 3);
    const first = subscriber.read()!, second = subscriber.read()!;
    assert.notEqual(first, second);
    assert.equal(subscriber.read(), null);
    assert.equal(await subscriber.wait({ timeoutMs: 1 }), false);
    const waiting = subscriber.wait();
    first.release();
    assert(await waiting);
    using third = subscriber.read()!;
    assert.deepEqual([text(second.data), text(third.data)], ["1", "2"]);
    second.release();
    second.release();
    assert(!second.held && third.held);
  },

  async "a message that is held stays as it is, until its subscriber is closed"(client) {
    const publisher = await client.createPublisher("/life", { slotBytes: 64, numSlots: 4 });
    const subscriber = await client.createSubscriber("/life");
    publisher.publish(bytes("keep"));
    const message = subscriber.read()!;
    publishAll(publisher, 100);
    assert.equal(text(message.data), "keep");
    const { data } = message;
    await subscriber.close();
    assert.equal(data.length, 0, "the view is detached");
    message.release();
    assert.throws(() => subscriber.read(), ClosedError);
    assert.throws(() => subscriber.wait(), ClosedError);
    assert(publisher.publish(bytes("x")));
    await publisher.close();
    assert.throws(() => publisher.publish(bytes("x")), ClosedError);
    await publisher.close();
  },

  async "a loop over messages releases each, and ends by itself, by abort and by close"(client) {
    const publisher = await client.createPublisher("/loop", { slotBytes: 64, numSlots: 32 });
    const subscriber = await client.createSubscriber("/loop");
    publishAll(publisher, 10);
    const seen: string[] = [];
    for await (const message of subscriber) {
      seen.push(text(message.data));
      if (seen.length === 5) break;
    }
    assert.deepEqual(seen, ["0", "1", "2", "3", "4"]);
    const abort = new AbortController();
    await assert.rejects(async () => {
      for await (const message of subscriber.messages({ signal: abort.signal })) {
        seen.push(text(message.data));
        if (seen.length === 10) setTimeout(() => abort.abort(new Error("enough")), 0);
      }
    }, /enough/);
    assert.equal(seen.length, 10);
    const ending = (async () => {
      for await (const message of subscriber) seen.push(text(message.data));
    })();
    publishAll(publisher, 1, 10);
    await eventually("the loop has read", () => seen.length === 11);
    await subscriber.close();
    await ending;
  },

  async "an iterator answers in the order in which it is asked, and goes on after an error"(client) {
    const publisher = await client.createPublisher("/asked", { slotBytes: 64, numSlots: 32 });
    let fails = false;
    const onReceive = () => {
      if (fails) throw new Error("refused");
    };
    const subscriber = await client.createSubscriber("/asked", { onReceive });
    await using messages = subscriber.messages();
    const ordinals: number[] = [];
    const asked = [1, 2, 3].map(async () => ordinals.push((await messages.next()).value!.ordinal));
    for (let i = 0; i < 3; i++) {
      publishAll(publisher, 1);
      await eventually("it is answered", () => ordinals.length > i);
    }
    await Promise.all(asked);
    assert.deepEqual(ordinals, [1, 2, 3]);
    publishAll(publisher, 2);
    fails = true;
    await assert.rejects(messages.next(), /refused/);
    fails = false;
    const { value } = await messages.next();
    assert(value!.ordinal === 5 && value!.held);
    await messages.return();
    assert(!value!.held);
    assert.deepEqual(await messages.next(), { done: true, value: undefined });
  },

  async "timers run although a subscriber is always behind"(client) {
    const publisher = await client.createPublisher("/busy", { slotBytes: 64, numSlots: 8 });
    const subscriber = await client.createSubscriber("/busy");
    let over = false;
    setTimeout(() => over = true, 5);
    publisher.publish(bytes("0"));
    for await (const _ of subscriber) {
      if (over) break;
      publisher.publish(bytes("more"));
    }
  },

  async "a subscriber that comes in mid-stream is woken by publishers that knew nothing of it"(
    client,
    connect,
  ) {
    const publisher = await client.createPublisher("/join", { slotBytes: 64, numSlots: 8 });
    publisher.publish(bytes("before"));
    await using other = await connect();
    for (let round = 0; round < 10; round++) {
      await using subscriber = await other.createSubscriber("/join");
      readAll(subscriber);
      const waiting = subscriber.wait();
      publisher.publish(bytes("now"));
      assert(await waiting);
      assert.deepEqual(readAll(subscriber), ["now"]);
    }
  },

  async "a publisher blocked by a subscriber goes on when that one is closed"(client, connect) {
    await using other = await connect();
    const publisher = await client.createPublisher("/gone", { slotBytes: 64, numSlots: 4, reliable: true });
    const stuck = await other.createSubscriber("/gone", { reliable: true });
    await client.createSubscriber("/gone");
    while (publisher.publish(bytes("x")));
    const waiting = publisher.wait();
    await stuck.close();
    assert(await waiting);
  },

  async "refusals carry the server's reason"(client) {
    await client.createPublisher("/strict", { slotBytes: 64, numSlots: 4, type: "Imu" });
    await assert.rejects(
      client.createPublisher("/strict", { slotBytes: 64, numSlots: 4, type: "Gps" }),
      (error) => {
        assert(error instanceof RequestError);
        assert.match(error.reason, /type has been set as Imu, not Gps/);
        return true;
      },
    );
    await assert.rejects(client.createSubscriber("/strict", { type: "Gps" }), RequestError);
    await assert.rejects(client.createSubscriber("/strict", { maxActiveMessages: 9 }), /you need at least/);
    await assert.rejects(client.createSubscriber("/strict", { maxActiveMessages: 0 }), RangeError);
    await assert.rejects(client.createPublisher("/strict", { slotBytes: 0, numSlots: 4 }), RangeError);
    await assert.rejects(client.createPublisher("/strict", { slotBytes: 64, numSlots: 2.5 }), RangeError);
    await assert.rejects(client.channelInfo("/nowhere"), RequestError);
    await client.createSubscriber("/strict", { type: "Imu" });
  },

  async "a publisher may ask for fewer slots than there are"(client) {
    const first = await client.createPublisher("/slots", { slotBytes: 64, numSlots: 16 });
    const second = await client.createPublisher("/slots", { slotBytes: 64, numSlots: 4 });
    const subscriber = await client.createSubscriber("/slots");
    assert.deepEqual([first.numSlots, second.numSlots, second.numSubscribers], [16, 16, 1]);
    first.publish(bytes("1"));
    second.publish(bytes("2"));
    assert.deepEqual(readAll(subscriber), ["1", "2"]);
  },

  async "checksums and metadata have room in front of the message"(client) {
    const sizes = { checksumBytes: 20, metadataBytes: 16 };
    const publisher = await client.createPublisher("/wide", { slotBytes: 64, numSlots: 4, ...sizes });
    const subscriber = await client.createSubscriber("/wide");
    publisher.publish(bytes("x"));
    using message = subscriber.read()!;
    assert.equal(text(message.data), "x");
    assert(message.timestampNs > 0n);
  },

  async "the server can be asked what there is"(client) {
    const publisher = await client.createPublisher("/info", { slotBytes: 128, numSlots: 4, type: "T" });
    await client.createSubscriber("/info", { reliable: true });
    publishAll(publisher, 3);
    const [info] = await client.channelInfo("/info");
    assert.equal(info.numSlots, 4);
    assert.equal(text(info.type), "T");
    assert.deepEqual(
      info.participants.map(({ pid, kind, clientName, reliable }) => ({ pid, kind, clientName, reliable })),
      [
        { pid: Deno.pid, kind: "publisher", clientName: "case", reliable: false },
        { pid: Deno.pid, kind: "subscriber", clientName: "case", reliable: true },
      ],
    );
    const [stats] = await client.channelStats("/info");
    assert.deepEqual([stats.totalMessages, stats.totalBytes, stats.maxMessageBytes], [3, 3, 1]);
    const names = (await client.channelInfo()).map(({ name }) => name);
    assert(names.includes("/info"));
  },

  async "what is closed is gone for the server too"(client, connect) {
    const count = async () => {
      const [info] = await client.channelInfo("/left");
      return [info.numPublishers, info.numSubscribers];
    };
    const publisher = await client.createPublisher("/left", { slotBytes: 64, numSlots: 8 });
    const subscriber = await client.createSubscriber("/left");
    {
      await using other = await connect();
      await other.createPublisher("/left", { slotBytes: 64, numSlots: 8 });
      await other.createSubscriber("/left");
      assert.deepEqual(await count(), [2, 2]);
    }
    assert.deepEqual(await count(), [1, 1]);
    await publisher.close();
    assert.deepEqual(await count(), [0, 1]);
    await subscriber.close();
    await assert.rejects(count(), RequestError);
    await client.close();
    await assert.rejects(client.channelInfo(), ClosedError);
    await assert.rejects(client.createSubscriber("/left"), ClosedError);
  },

  async "many channels are created at once"(client) {
    const names = Array.from({ length: 200 }, (_, i) => `/many/${i}`);
    const subscribers = await Promise.all(names.map((name) => client.createSubscriber(name)));
    const publishers = await Promise.all(
      names.map((name) => client.createPublisher(name, { slotBytes: 64, numSlots: 4 })),
    );
    publishers.forEach((publisher, i) => publisher.publish(bytes(names[i])));
    for (const [i, subscriber] of subscribers.entries()) {
      assert(await subscriber.wait());
      assert.deepEqual(readAll(subscriber), [names[i]]);
    }
  },
};
