/** Virtual channels and subscriber queues, between a client and any server: ours in this process, and the C++ one. */

import assert from "node:assert/strict";
import { type Client, RequestError } from "../../mod.ts";
import { eventually, readAll } from "./cases.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (text: string) => new TextEncoder().encode(text);

const SHAPE = { slotBytes: 64, numSlots: 32 };

/** Name of a case, and what is done with a client on a server of its own. */
export const channelCases: Record<string, (client: Client, connect: () => Promise<Client>) => Promise<void>> =
  {
    async "a virtual channel carries its own messages only"(client) {
      const left = await client.createPublisher("/left", { ...SHAPE, mux: "/mux" });
      const right = await client.createPublisher("/right", { ...SHAPE, mux: "/mux" });
      assert.notEqual(left.vchanId, right.vchanId);
      const subscriber = await client.createSubscriber("/left", { mux: "/mux" });
      assert.equal(subscriber.vchanId, left.vchanId);
      assert.deepEqual([left.numSubscribers, right.numSubscribers], [1, 0]);
      for (let i = 0; i < 5; i++) {
        left.publish(bytes(`left ${i}`));
        right.publish(bytes(`right ${i}`));
      }
      assert.deepEqual(readAll(subscriber), [0, 1, 2, 3, 4].map((i) => `left ${i}`));
      assert.equal(left.ordinal, 5);
      assert.equal(right.ordinal, 5);
    },

    async "a subscriber of the multiplexer reads all its virtual channels, and learns their names"(
      client,
      connect,
    ) {
      await using other = await connect();
      const early = await other.createPublisher("/v/0", { ...SHAPE, mux: "/mux", vchanId: 7 });
      const subscriber = await client.createSubscriber("/mux");
      const late = await other.createPublisher("/v/1", { ...SHAPE, mux: "/mux" });
      assert.equal(early.vchanId, 7);
      assert.equal(subscriber.vchanId, -1);
      for (let i = 0; i < 5; i++) {
        early.publish(bytes(`0.${i}`));
        late.publish(bytes(`1.${i}`));
      }
      const ordinals = new Map<number, number>();
      for (let i = 0; i < 10; i++) {
        assert(await subscriber.wait());
        using message = subscriber.read()!;
        assert.equal(text(message.data), `${i % 2}.${i >> 1}`);
        assert.equal(message.vchanId, i % 2 === 0 ? 7 : late.vchanId);
        assert.equal(message.ordinal, (ordinals.get(message.vchanId) ?? 0) + 1);
        ordinals.set(message.vchanId, message.ordinal);
        const name = i % 2 === 0 ? "/v/0" : "/v/1";
        await eventually("the channel's name", () => message.channel === name);
      }
      assert.equal(subscriber.read(), null);
      assert.equal(subscriber.drops, 0);
    },

    async "a subscriber may come before its multiplexer's first publisher"(client, connect) {
      const virtual = await client.createSubscriber("/v/a", { mux: "/mux", reliable: true });
      const all = await client.createSubscriber("/mux");
      const waits = [virtual.wait(), all.wait()];
      await using other = await connect();
      const publisher = await other.createPublisher("/v/a", { ...SHAPE, mux: "/mux", reliable: true });
      assert.equal(publisher.vchanId, virtual.vchanId);
      await publisher.send(bytes("first"));
      assert.deepEqual(await Promise.all(waits), [true, true]);
      assert.deepEqual([readAll(virtual), readAll(all)], [["first"], ["first"]]);
    },

    async "slots of virtual channels grow together, in mid-stream"(client, connect) {
      await using other = await connect();
      const publishers = [
        await client.createPublisher("/v/a", { ...SHAPE, mux: "/mux" }),
        await other.createPublisher("/v/b", { ...SHAPE, mux: "/mux" }),
      ];
      const all = await other.createSubscriber("/mux");
      const one = await client.createSubscriber("/v/b", { mux: "/mux" });
      for (let size = 1, i = 0; size <= 1 << 18; size *= 2, i++) {
        publishers[i % 2].publish(new Uint8Array(size).fill(i));
        for (const subscriber of i % 2 === 0 ? [all] : [all, one]) {
          using message = subscriber.read()!;
          assert.equal(message.data.length, size);
          assert(message.data.every((byte) => byte === i));
        }
      }
      assert.equal(one.read(), null);
      const buffer = publishers[0].getBuffer()!;
      assert(buffer.length >= 1 << 17, "each uses the buffers that the other has made");
    },

    async "reliable virtual channels lose nothing, for their own subscribers and the multiplexer's"(
      client,
      connect,
    ) {
      await using other = await connect();
      const count = 500, shape = { slotBytes: 64, numSlots: 8, mux: "/mux", reliable: true };
      const publishers = [
        await client.createPublisher("/v/0", shape),
        await other.createPublisher("/v/1", shape),
      ];
      const own = await other.createSubscriber("/v/0", { mux: "/mux", reliable: true });
      const all = await client.createSubscriber("/mux", { reliable: true });
      const idle = await client.createSubscriber("/v/1", { mux: "/mux" });
      const sending = publishers.map(async (publisher, i) => {
        for (let n = 0; n < count; n++) await publisher.send(bytes(`${i}.${n}`));
      });
      const readingOwn = (async () => {
        let next = 0;
        for await (const message of own) {
          assert.equal(text(message.data), `0.${next++}`);
          if (next === count) return;
        }
      })();
      const next = [0, 0];
      const readingAll = (async () => {
        for await (const message of all) {
          const [i, n] = text(message.data).split(".").map(Number);
          assert.equal(n, next[i]++);
          if (next[0] + next[1] === 2 * count) return;
        }
      })();
      await Promise.all([...sending, readingOwn, readingAll]);
      assert.deepEqual([own.drops, all.drops], [0, 0]);
      assert(readAll(idle).length < count, "an unreliable subscriber holds nobody up");
    },

    async "multiplexers and plain channels are not taken for each other"(client) {
      await client.createPublisher("/v", { ...SHAPE, mux: "/mux", vchanId: 3 });
      await client.createPublisher("/plain", SHAPE);
      const refused = (creation: Promise<unknown>) => assert.rejects(creation, RequestError);
      await refused(client.createPublisher("/mux", SHAPE));
      await refused(client.createPublisher("/v", SHAPE));
      await refused(client.createPublisher("/v", { ...SHAPE, mux: "/plain" }));
      await refused(client.createPublisher("/plain", { ...SHAPE, mux: "/mux" }));
      await refused(client.createPublisher("/w", { ...SHAPE, mux: "/mux", vchanId: 3 }));
      await refused(client.createSubscriber("/v"));
      await refused(client.createSubscriber("/plain", { mux: "/mux" }));
      await assert.rejects(client.createSubscriber("/x", { vchanId: 3 }), RangeError);
      await assert.rejects(
        client.createPublisher("/x", { ...SHAPE, mux: "/mux", vchanId: 1023 }),
        RangeError,
      );
    },

    async "limits on publishers and subscribers count all virtual channels of a multiplexer"(client) {
      const shape = { ...SHAPE, mux: "/mux" };
      await client.createPublisher("/v/a", { ...shape, maxPublishers: 2 });
      await client.createPublisher("/v/b", { ...shape, maxPublishers: 2 });
      await assert.rejects(client.createPublisher("/v/c", { ...shape, maxPublishers: 2 }), RequestError);
      await client.createSubscriber("/v/a", { mux: "/mux", maxSubscribers: 1 });
      await assert.rejects(
        client.createSubscriber("/v/b", { mux: "/mux", maxSubscribers: 1 }),
        RequestError,
      );
    },

    async "a queue of the channel's size that overflows costs no message, and no order"(client, connect) {
      await using other = await connect();
      const shape = { slotBytes: 64, numSlots: 32, subscriberQueueArenaBytes: 64000 };
      const publishers = [
        await client.createPublisher("/q", shape),
        await other.createPublisher("/q", shape),
      ];
      const subscribers = [
        await client.createSubscriber("/q"),
        await other.createSubscriber("/q"),
      ];
      assert.deepEqual(subscribers.map(({ queueSize }) => queueSize), [16, 16]);
      const sent: string[] = [];
      for (let round = 0; round < 20; round++) {
        for (let i = 0; i < 20; i++) {
          const message = `${round}.${i}`;
          assert(publishers[i % 2].publish(bytes(message)));
          sent.push(message);
        }
        for (const subscriber of subscribers) {
          assert(await subscriber.wait());
          assert.deepEqual(readAll(subscriber), sent.slice(-20));
          assert.equal(await subscriber.wait({ timeoutMs: 0 }), false);
        }
      }
      assert.deepEqual(subscribers.map(({ drops }) => drops), [0, 0]);
    },

    async "a queue that was asked for keeps the newest messages, in order, and what it drops is counted"(
      client,
    ) {
      const shape = { slotBytes: 64, numSlots: 40, subscriberQueueArenaBytes: 64000 };
      const publisher = await client.createPublisher("/q", shape);
      const told: number[] = [];
      const small = await client.createSubscriber("/q", {
        queueSize: 2,
        onDrop: (count) => told.push(count),
      });
      const usual = await client.createSubscriber("/q");
      const reliable = await client.createSubscriber("/q", { queueSize: 2, reliable: true });
      assert.deepEqual([small.queueSize, usual.queueSize], [2, 16]);
      const publish = (from: number, to: number) => {
        for (let i = from; i <= to; i++) publisher.publish(bytes(String(i)));
      };
      publish(1, 4);
      assert.equal(text(small.readNewest()!.data), "4");
      small.readNewest()?.release();
      await small.close();
      const next = await client.createSubscriber("/q", { queueSize: 2, onDrop: (count) => told.push(count) });
      assert.deepEqual(readAll(next), ["3", "4"], "the newest of what was there already");
      assert.deepEqual(told, [2]);
      publish(5, 8);
      {
        using message = next.read()!;
        assert.equal(text(message.data), "7");
      }
      assert.deepEqual(told, [2, 2]);
      publish(9, 10);
      assert.deepEqual(readAll(next), ["9", "10"], "8 had no place any more");
      assert.deepEqual([told, next.drops], [[2, 2, 1], 5]);
      publish(11, 100);
      assert(await next.wait());
      assert.deepEqual(readAll(next), ["99", "100"]);
      assert.equal(next.drops, 5 + 88, "what was overwritten in its slot is counted too");
      assert.equal(readAll(usual).at(-1), "100");
      assert.equal(
        readAll(reliable)[0],
        readAll(await client.createSubscriber("/q"))[0],
        "it goes by the slots",
      );
    },

    async "queues have room as long as the channel's arena has, also that of subscribers that left"(
      client,
      connect,
    ) {
      // One queue of 16 takes 640 bytes.
      const publisher = await client.createPublisher("/q", { ...SHAPE, subscriberQueueArenaBytes: 1280 });
      await client.createSubscriber("/q", { queueSize: 16 });
      const other = await connect();
      const second = await other.createSubscriber("/q", { queueSize: 16 });
      await assert.rejects(client.createSubscriber("/q", { queueSize: 16 }), /does not fit/);
      await assert.rejects(client.createSubscriber("/q", { queueSize: 1025 }), RequestError);
      await second.close();
      for (let i = 0; i < 50; i++) {
        await using subscriber = await other.createSubscriber("/q", { queueSize: 16 });
        publisher.publish(bytes(String(i)));
        assert.equal(readAll(subscriber).at(-1), String(i));
      }
      await other.createSubscriber("/q", { queueSize: 16 });
      await other.close();
      await client.createSubscriber("/q", { queueSize: 16 });
    },

    async "all publishers of a channel agree about its arena, those of virtual channels too"(client) {
      const shape = { ...SHAPE, subscriberQueueArenaBytes: 1280 };
      await client.createPublisher("/q", shape);
      await assert.rejects(client.createPublisher("/q", SHAPE), RequestError);
      await client.createPublisher("/v/a", { ...shape, mux: "/mux" });
      await client.createPublisher("/v/b", { ...shape, mux: "/mux" });
      await assert.rejects(client.createPublisher("/v/c", { ...SHAPE, mux: "/mux" }), RequestError);
    },

    async "a queue that was asked for before there was a channel does not keep its publisher out"(client) {
      const subscriber = await client.createSubscriber("/q", { queueSize: 1024 });
      const publisher = await client.createPublisher("/q", { ...SHAPE, subscriberQueueArenaBytes: 1280 });
      const waiting = subscriber.wait();
      publisher.publish(bytes("x"));
      assert(await waiting);
      assert.deepEqual(readAll(subscriber), ["x"]);
    },

    async "messages in queues survive that as many are held as may be"(client) {
      const publisher = await client.createPublisher("/q", { ...SHAPE, subscriberQueueArenaBytes: 1280 });
      const subscriber = await client.createSubscriber("/q", { queueSize: 4 });
      publisher.publish(bytes("1"));
      publisher.publish(bytes("2"));
      const held = subscriber.read()!;
      assert.equal(subscriber.read(), null);
      held.release();
      assert.deepEqual(readAll(subscriber), ["2"]);
    },

    async "subscribers with queues come and go under traffic, and those who stay miss nothing in between"(
      client,
      connect,
    ) {
      await using other = await connect();
      const shape = { slotBytes: 64, numSlots: 64, subscriberQueueArenaBytes: 6400 };
      const publishers = [
        await client.createPublisher("/q", shape),
        await other.createPublisher("/q", shape),
      ];
      const stays = await client.createSubscriber("/q");
      let sent = 0;
      for (let round = 0; round < 100; round++) {
        const joining = other.createSubscriber("/q", { queueSize: 1 + round % 16 });
        const before = sent;
        for (let i = 0; i < 10; i++) publishers[i % 2].publish(bytes(String(sent++)));
        const expected = Array.from({ length: sent - before }, (_, i) => String(before + i));
        assert.deepEqual(readAll(stays), expected);
        await using joined = await joining;
        publishers[round % 2].publish(bytes(String(sent++)));
        assert.equal(readAll(joined).at(-1), String(sent - 1));
        assert.deepEqual(readAll(stays), [String(sent - 1)]);
      }
      assert.equal(stays.drops, 0);
    },
  };
