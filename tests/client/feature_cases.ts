/** What holds of each feature of a client, with any server: run against ours, in this process, and against the C++ one. */

import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { createEventFd, drain, signal } from "../../ffi/eventfd.ts";
import { pollSync } from "../../ffi/poll.ts";
import {
  ChecksumError,
  type ChecksumFunction,
  type Client,
  crc32c,
  jsonCodec,
  LeaseError,
  protobufCodec,
  RequestError,
} from "../../mod.ts";
import { InitRequestSchema } from "../../proto/subspace_pb.ts";
import { eventually, readAll } from "./cases.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (text: string) => new TextEncoder().encode(text);
const SMALL = { slotBytes: 64, numSlots: 8 };

/** A checksum of 20 bytes that depends on every byte and its place. */
export const rolling: ChecksumFunction = (checksum, ...parts) => {
  let place = 0;
  for (const part of parts) {
    for (const byte of part) {
      checksum[place % checksum.length] = checksum[place++ % checksum.length] * 31 + byte;
    }
  }
};

/** Name of a case, and what is done with a client on a server of its own. */
export const featureCases: Record<string, (client: Client) => Promise<void>> = {
  async "a message with a checksum is read, and refused once it was changed"(client) {
    for (const checksum of [true, crc32c]) {
      const channel = `/sum_${typeof checksum}`;
      const publisher = await client.createPublisher(channel, { ...SMALL, checksum, metadataBytes: 8 });
      const subscriber = await client.createSubscriber(channel, { checksum: true });
      const careless = await client.createSubscriber(channel);
      const lenient = await client.createSubscriber(channel, { checksum: true, passChecksumErrors: true });
      const vandal = await client.createSubscriber(channel, { writable: true });
      publisher.publish(bytes("whole"), bytes("meta"));
      assert.deepEqual([readAll(subscriber), readAll(careless), readAll(lenient)], [["whole"], ["whole"], [
        "whole",
      ]]);
      readAll(vandal);
      for (const change of ["data", "metadata"] as const) {
        publisher.publish(bytes("broken"), bytes("meta"));
        {
          using message = vandal.read()!;
          message[change][0] ^= 1;
        }
        const { ordinal } = publisher;
        assert.throws(
          () => subscriber.read(),
          (error) => error instanceof ChecksumError && error.ordinal === ordinal,
        );
        assert.equal(subscriber.read(), null, "it was skipped");
        using message = lenient.read()!;
        assert(message.checksumError);
        using unchecked = careless.read()!;
        assert.equal(unchecked.ordinal, ordinal);
      }
      publisher.publish(bytes("next"));
      assert.deepEqual(readAll(subscriber), ["next"]);
      using message = lenient.read()!;
      assert(!message.checksumError);
    }
  },

  async "a checksum of the user's own fills all the room that the channel has for it"(client) {
    const options = { ...SMALL, checksumBytes: 20, metadataBytes: 16 };
    const publisher = await client.createPublisher("/own", { ...options, checksum: rolling });
    const subscriber = await client.createSubscriber("/own", { checksum: rolling });
    const standard = await client.createSubscriber("/own", { checksum: true });
    publisher.publish(bytes("hello"), bytes("meta"));
    assert.deepEqual(readAll(subscriber), ["hello"]);
    assert.throws(() => standard.read(), ChecksumError);
    const faulty = await client.createPublisher("/own", {
      ...options,
      checksum: () => {
        throw new Error("no sum today");
      },
    });
    assert.throws(() => faulty.publish(bytes("unsummed")), /no sum today/);
    assert.deepEqual(
      readAll(subscriber),
      ["unsummed"],
      "it had its number, so it went out, without a checksum",
    );
  },

  async "what a checksum function throws costs neither a wake-up nor a slot"(client) {
    let fails = false;
    const checksum = () => {
      if (fails) throw new Error("mine");
    };
    const subscriber = await client.createSubscriber("/throws");
    const publisher = await client.createPublisher("/throws", {
      ...SMALL,
      checksum,
      maxOutstandingLeases: 2,
    });
    publisher.publish(bytes("x"));
    await subscriber.wait();
    const { pollFd } = subscriber;
    while (pollSync([pollFd], 0).length > 0) readAll(subscriber); // It is also signalled once when a publisher comes.
    fails = true;
    assert.throws(() => publisher.publish(bytes("y")), /mine/);
    assert.deepEqual(pollSync([pollFd], 0), [pollFd]);
    assert.deepEqual(readAll(subscriber), ["y"]);
    for (let i = 0; i < 2 * SMALL.numSlots; i++) {
      const lease = publisher.lease();
      assert(lease !== null && publisher.getBuffer() !== null, `after ${i} messages no slot is left`);
      assert.throws(() => lease.publish(1), /mine/);
      assert.equal(readAll(subscriber).length, 1);
    }
  },

  async "metadata travels in front of a message, whatever its size"(client) {
    for (
      const [checksumBytes, metadataBytes] of [[4, 1], [4, 12], [4, 13], [20, 16], [32, 64], [4, 1000], [
        65535,
        65535,
      ]]
    ) {
      const channel = `/meta_${checksumBytes}_${metadataBytes}`;
      const publisher = await client.createPublisher(channel, {
        ...SMALL,
        checksumBytes,
        metadataBytes,
        checksum: true,
      });
      const subscriber = await client.createSubscriber(channel, { checksum: true });
      for (let round = 1; round < 12; round++) {
        const buffer = publisher.getBuffer()!;
        assert.equal(publisher.metadata.length, metadataBytes);
        publisher.metadata.fill(round);
        buffer.fill(round + 1);
        publisher.publish(64);
        using message = subscriber.read()!;
        assert.deepEqual(message.metadata, new Uint8Array(metadataBytes).fill(round));
        assert.deepEqual(message.data, new Uint8Array(64).fill(round + 1));
      }
    }
    const publisher = await client.createPublisher("/meta", { ...SMALL, metadataBytes: 4 });
    assert.throws(() => publisher.metadata, /no buffer was asked for/);
    assert.throws(() => publisher.publish(bytes("x"), bytes("12345")), /5 bytes of metadata.*room for 4/);
    const none = await client.createPublisher("/nometa", SMALL);
    const subscriber = await client.createSubscriber("/nometa");
    none.publish(bytes("x"));
    using message = subscriber.read()!;
    assert.equal(message.metadata.length, 0);
  },

  async "impossible sizes of checksums and metadata are refused with the reason"(client) {
    for (
      const options of [{ checksumBytes: 65536 }, { metadataBytes: 65536 }, { metadataBytes: -1 }, {
        checksumBytes: 3,
      }]
    ) {
      await assert.rejects(
        client.createPublisher("/sizes", { ...SMALL, ...options }),
        /Bytes must be \d to 65535/,
      );
    }
    await client.createPublisher("/sizes", { ...SMALL, metadataBytes: 16 });
    await assert.rejects(client.createPublisher("/sizes", { ...SMALL, metadataBytes: 17 }), RequestError);
  },

  async "leased slots are published in any order, and numbered as they are published"(client) {
    const publisher = await client.createPublisher("/lease", {
      ...SMALL,
      maxOutstandingLeases: 3,
      metadataBytes: 4,
    });
    const subscriber = await client.createSubscriber("/lease");
    const leases = ["a", "b", "c"].map((letter) => {
      const lease = publisher.lease()!;
      lease.buffer.set(bytes(letter));
      lease.metadata.fill(letter.charCodeAt(0));
      return lease;
    });
    assert.equal(new Set(leases.map((lease) => lease.slotId)).size, 3);
    assert.equal(publisher.lease(), null, "three are out");
    assert.equal(publisher.getBuffer(), null, "all slots that were agreed upon are leased");
    assert.deepEqual([2, 0, 1].map((i) => leases[i].publish(1)), [1, 2, 3]);
    for (const letter of "cab") {
      using message = subscriber.read()!;
      assert.deepEqual([text(message.data), message.metadata[0]], [letter, letter.charCodeAt(0)]);
    }
    assert.throws(() => leases[0].publish(1), LeaseError);
    leases[0].release();
    {
      using lease = publisher.lease()!;
      assert.throws(() => lease.publish(65), RangeError);
    }
    using lease = publisher.lease(1000)!;
    assert(lease.buffer.length >= 1000);
    publisher.publish(bytes("ordinary"));
    lease.buffer.fill(1);
    lease.publish(1000);
    assert.equal(readAll(subscriber).length, 2);
    for (let i = 0; i < 100; i++) {
      using unused = publisher.lease()!;
      assert(unused.slotId >= 0);
    }
  },

  async "a leased slot can be had again once it is retired, and only then"(client) {
    const publisher = await client.createPublisher("/reclaim", {
      ...SMALL,
      maxOutstandingLeases: 2,
      notifyRetirement: true,
    });
    const subscriber = await client.createSubscriber("/reclaim");
    using other = publisher.lease()!;
    const lease = publisher.lease()!, { slotId } = lease;
    assert.equal(publisher.reclaim(slotId), null, "it is leased");
    lease.publish(1);
    assert.equal(publisher.reclaim(slotId), null, "it is unread");
    const message = subscriber.read()!;
    assert.equal(publisher.reclaim(slotId), null, "it is held");
    message.release();
    assert.equal(publisher.retirements.read(), slotId);
    using again = publisher.reclaim(slotId)!;
    assert.equal(again.slotId, slotId);
    assert.equal(publisher.reclaim(99), null);
    assert(other.slotId !== slotId);
  },

  async "a lease published to nobody is retired at once"(client) {
    const publisher = await client.createPublisher("/nobody", { ...SMALL, notifyRetirement: true });
    const lease = publisher.lease()!;
    lease.publish(1);
    assert.equal(publisher.retirements.read(), lease.slotId);
    using again = publisher.reclaim(lease.slotId)!;
    assert.equal(again.slotId, lease.slotId);
  },

  async "leases are capacity, which the server keeps"(client) {
    await client.createPublisher("/capacity", { ...SMALL, maxOutstandingLeases: 6 });
    await client.createSubscriber("/capacity");
    await assert.rejects(client.createSubscriber("/capacity"), /there are 8 slots with .* 6 slot leases/);
  },

  async "publishers hear of each slot that every subscriber has read"(client) {
    const publisher = await client.createPublisher("/retire", { ...SMALL, notifyRetirement: true });
    const other = await client.createPublisher("/retire", { ...SMALL, notifyRetirement: true });
    const first = await client.createSubscriber("/retire"), second = await client.createSubscriber("/retire");
    await eventually("all know each other", () => publisher.numSubscribers === 2);
    const slots: number[] = [];
    for (let i = 0; i < 3; i++) {
      publisher.publish(bytes(String(i)));
      using message = first.read()!;
      slots.push(message.slotId);
    }
    assert.equal(publisher.retirements.read(), null, "one has not read");
    assert.equal(readAll(second).length, 3);
    const heard: number[] = [];
    for await (const slotId of publisher.retirements) if (heard.push(slotId) === 3) break;
    assert.deepEqual(heard, slots);
    await eventually("the other hears too", () => other.retirements.read() === slots.at(-1));
    const iterating = (async () => {
      for await (const slotId of publisher.retirements) slots.push(slotId);
      return "over";
    })();
    await publisher.close();
    assert.equal(await iterating, "over");
    const deaf = await client.createPublisher("/deaf", SMALL);
    assert.throws(() => deaf.retirements, /notifyRetirement/);
  },

  async "a publisher that overwrites unread messages says so, unless told not to"(client) {
    for (const notifyForcedReuse of [true, false]) {
      const channel = `/forced_${notifyForcedReuse}`;
      const publisher = await client.createPublisher(channel, {
        ...SMALL,
        notifyRetirement: true,
        notifyForcedReuse,
      });
      await client.createSubscriber(channel);
      for (let i = 0; i < 20; i++) publisher.publish(bytes("x"));
      let heard = 0;
      while (publisher.retirements.read() !== null) heard++;
      assert.equal(heard > 0, notifyForcedReuse);
    }
  },

  async "slots that everybody has read are preferred where a publisher asks for it"(client) {
    for (const preferRetiredSlots of [false, true]) {
      const channel = `/prefer_${preferRetiredSlots}`;
      const publisher = await client.createPublisher(channel, { ...SMALL, preferRetiredSlots });
      const subscriber = await client.createSubscriber(channel);
      const used = new Set<number>();
      for (let i = 0; i < 8; i++) {
        publisher.publish(bytes("x"));
        using message = subscriber.read()!;
        used.add(message.slotId);
      }
      assert.equal(used.size, preferRetiredSlots ? 2 : 8);
    }
  },

  async "drops are counted and told, unless the subscriber does not care"(client) {
    const publisher = await client.createPublisher("/drops", SMALL);
    const told: number[] = [];
    const subscriber = await client.createSubscriber("/drops", { onDrop: (count) => void told.push(count) });
    const careless = await client.createSubscriber("/drops", {
      detectDrops: false,
      onDrop: (n) => void told.push(-n),
    });
    publisher.publish(bytes("0"));
    readAll(subscriber), readAll(careless);
    for (let i = 0; i < 50; i++) publisher.publish(bytes("x"));
    const read = readAll(subscriber).length;
    assert.equal(readAll(careless).length, read);
    assert.equal(told.reduce((sum, count) => sum + count, 0), 50 - read);
    assert.deepEqual([subscriber.drops, careless.drops], [50 - read, 0]);
    assert.equal((await client.channelStats("/drops"))[0].totalDrops, 50 - read);
  },

  async "a message may be changed, shortened or kept back before it is sent"(client) {
    const publisher = await client.createPublisher("/send", {
      ...SMALL,
      onSend(message) {
        if (text(message) === "no") throw new Error("not this one");
        message[0] = "H".charCodeAt(0);
        return text(message) === "Hello" ? 4 : undefined;
      },
    });
    const subscriber = await client.createSubscriber("/send");
    publisher.publish(bytes("hello"));
    assert.throws(() => publisher.publish(bytes("no")), /not this one/);
    publisher.publish(bytes("ho"));
    assert.deepEqual(readAll(subscriber), ["Hell", "Ho"]);
    assert.equal(publisher.ordinal, 2);
  },

  async "a message may be shortened, skipped or refused before it is read"(client) {
    const publisher = await client.createPublisher("/receive", SMALL);
    const subscriber = await client.createSubscriber("/receive", {
      onReceive(message) {
        if (text(message) === "bad") throw new Error("bad one");
        return text(message) === "skip" ? 0 : text(message) === "hello" ? 4 : undefined;
      },
    });
    for (const message of ["hello", "skip", "all", "skip"]) publisher.publish(bytes(message));
    assert.deepEqual(readAll(subscriber), ["hell", "all"]);
    publisher.publish(bytes("bad"));
    publisher.publish(bytes("good"));
    assert.throws(() => subscriber.read(), /bad one/);
    assert.deepEqual(readAll(subscriber), ["good"]);
  },

  async "slots grow only with the user's consent"(client) {
    const sizes: number[][] = [];
    const publisher = await client.createPublisher("/consent", {
      ...SMALL,
      onResize(from, to) {
        if (to > 1000) throw new RangeError("too much");
        sizes.push([from, to]);
      },
    });
    assert.equal(publisher.getBuffer(100)?.length, 128);
    assert.throws(() => publisher.getBuffer(2000), /too much/);
    assert.equal(publisher.slotBytes, 128);
    assert.deepEqual(sizes, [[64, 128]]);
    assert(publisher.publish(bytes("fits")));
  },

  async "a message is found by its time, be it read or not, as long as it is there"(client) {
    const publisher = await client.createPublisher("/find", { slotBytes: 64, numSlots: 16 });
    const subscriber = await client.createSubscriber("/find", { maxActiveMessages: 3 });
    const watcher = await client.createSubscriber("/find");
    const times: bigint[] = [];
    for (let i = 0; i < 4; i++) {
      publisher.publish(bytes(String(i)));
      using message = watcher.read()!;
      times.push(message.timestampNs);
    }
    {
      using found = subscriber.find(times[2])!;
      assert.equal(text(found.data), "2");
      assert.equal(subscriber.find(times[2]), null, "it is held");
    }
    assert.deepEqual(readAll(subscriber), ["0", "1", "3"]);
    using again = subscriber.find(times[0])!;
    assert.deepEqual([text(again.data), again.ordinal, again.timestampNs], ["0", 1, times[0]]);
    assert.equal(subscriber.find(1n), null);
    again.release();
    for (let i = 0; i < 40; i++) publisher.publish(bytes("x"));
    readAll(subscriber);
    assert.equal(subscriber.find(times[0]), null, "it was overwritten");
    assert.equal(subscriber.drops + readAll(subscriber).length > 0, true);
  },

  async "who asks for it reads that a publisher is there"(client) {
    const subscriber = await client.createSubscriber("/active", { passActivation: true });
    const plain = await client.createSubscriber("/active");
    const publisher = await client.createPublisher("/active", { ...SMALL, activate: true });
    assert.equal(publisher.ordinal, 1);
    await subscriber.wait();
    {
      using message = subscriber.read()!;
      assert(message.isActivation);
    }
    publisher.publish(bytes("x"));
    {
      using message = subscriber.read()!;
      assert(!message.isActivation);
    }
    await plain.wait();
    assert.deepEqual(readAll(plain), ["x"]);
  },

  async "channels have no more publishers and subscribers than agreed"(client) {
    await client.createPublisher("/limits", { ...SMALL, maxPublishers: 1 });
    await assert.rejects(client.createPublisher("/limits", { ...SMALL, maxPublishers: 1 }), RequestError);
    await client.createSubscriber("/limits", { maxSubscribers: 1 });
    await assert.rejects(client.createSubscriber("/limits", { maxSubscribers: 1 }), RequestError);
  },

  async "everything that is there is processed at once"(client) {
    const publisher = await client.createPublisher("/process", SMALL);
    const subscriber = await client.createSubscriber("/process");
    assert.equal(subscriber.processAll(() => assert.fail()), 0);
    for (let i = 0; i < 5; i++) publisher.publish(bytes(String(i)));
    const all: string[] = [];
    assert.equal(subscriber.processAll((message) => void all.push(text(message.data))), 5);
    assert.deepEqual(all, ["0", "1", "2", "3", "4"]);
    publisher.publish(bytes("x"));
    assert.throws(() =>
      subscriber.processAll(() => {
        throw new Error("mine");
      }), /mine/);
    assert.equal(subscriber.read(), null);
  },

  async "a wait also ends when another fd is readable"(client) {
    const publisher = await client.createPublisher("/extra", { ...SMALL, reliable: true });
    const subscriber = await client.createSubscriber("/extra");
    using fd = createEventFd();
    assert(subscriber.pollFd >= 0 && publisher.pollFd >= 0 && subscriber.pollFd !== publisher.pollFd);
    const waiting = subscriber.wait({ fd: fd.number });
    signal(fd.number);
    assert.equal(await waiting, false);
    assert.equal(subscriber.waitSync({ fd: fd.number }), false);
    publisher.publish(bytes("x"));
    assert.equal(await subscriber.wait({ fd: fd.number }), true);
    assert.equal(subscriber.waitSync({ fd: fd.number }), true);
  },

  async "several waits may end with the same other fd, and one that is closed fails its wait alone"(client) {
    const publisher = await client.createPublisher("/extra", SMALL);
    const first = await client.createSubscriber("/extra"), second = await client.createSubscriber("/extra");
    {
      using fd = createEventFd();
      const waits = [first, first, second].map((subscriber) => subscriber.wait({ fd: fd.number }));
      signal(fd.number);
      assert.deepEqual(await Promise.all(waits), [false, false, false]);
    }
    const closed = createEventFd(), { number } = closed;
    closed.close();
    await assert.rejects(first.wait({ fd: number, timeoutMs: 1 }), { code: "EBADF" });
    const waiting = first.wait();
    publisher.publish(bytes("x"));
    assert.equal(await waiting, true);
  },

  async "a wait that is aborted is rejected, whatever the reason is"(client) {
    const subscriber = await client.createSubscriber("/abort");
    for (const reason of [true, false, undefined, "mine"]) {
      const abort = new AbortController();
      const waiting = subscriber.wait({ signal: abort.signal });
      abort.abort(reason);
      await waiting.then(() => assert.fail("it was not rejected"), (thrown) => {
        assert.equal(thrown, abort.signal.reason);
      });
    }
  },

  async "a poll fd tells of a message that had to wait for a release"(client) {
    const publisher = await client.createPublisher("/poll", SMALL);
    const subscriber = await client.createSubscriber("/poll");
    publisher.publish(bytes("first"));
    publisher.publish(bytes("second"));
    const first = subscriber.read()!;
    assert.equal(subscriber.read(), null);
    while (drain(subscriber.pollFd));
    first.release();
    assert.deepEqual(pollSync([subscriber.pollFd], 0), [subscriber.pollFd]);
    assert.deepEqual(readAll(subscriber), ["second"]);
  },

  async "the client says what channels there are, and who uses them"(client) {
    assert.equal(await client.channelExists("/there"), false);
    await assert.rejects(client.channelCounters("/there"), RequestError);
    await client.createPublisher("/there", { ...SMALL, reliable: true });
    await client.createSubscriber("/there");
    assert.equal(await client.channelExists("/there"), true);
    const { publisherUpdates, subscriberUpdates, ...counts } = await client.channelCounters("/there");
    assert(publisherUpdates === 1 && subscriberUpdates === 1);
    assert.deepEqual(counts, {
      publishers: 1,
      reliablePublishers: 1,
      subscribers: 1,
      reliableSubscribers: 0,
      resizes: 0,
    });
  },

  async "values travel typed: as JSON, or as protobufs"(client) {
    const json = { codec: jsonCodec<{ name: string; values: number[] }>() };
    const publisher = await client.createPublisher("/json", { ...SMALL, ...json });
    const subscriber = await client.createSubscriber("/json", json);
    const sent = { name: "ü", values: Array.from({ length: 100 }, (_, i) => i / 2) };
    assert(publisher.publishValue(sent));
    {
      using message = subscriber.read()!;
      assert.deepEqual(message.value, sent);
    }
    const codec = protobufCodec(InitRequestSchema);
    const publisher2 = await client.createPublisher("/proto", { ...SMALL, codec });
    const subscriber2 = await client.createSubscriber("/proto", { codec });
    await publisher2.sendValue(create(InitRequestSchema, { clientName: "me" }));
    using message = subscriber2.read()!;
    assert.equal(message.value.clientName, "me");
    const plain = await client.createSubscriber("/proto");
    using raw = plain.read()!;
    assert.deepEqual(raw.value, raw.data);
  },

  async "messages that pass on another machine's are marked"(client) {
    for (const tunnel of [true, false]) {
      const channel = `/tunnel_${tunnel}`;
      const publisher = await client.createPublisher(channel, { ...SMALL, tunnel });
      const subscriber = await client.createSubscriber(channel);
      publisher.publish(bytes("x"));
      using message = subscriber.read()!;
      assert.equal(message.isCrossMachine, tunnel);
    }
  },
};
