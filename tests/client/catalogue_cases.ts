/** What the reference's own tests of its client hold besides: with any server, ours in this process and the C++ one. */

import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { createEventFd, signal } from "../../ffi/eventfd.ts";
import { ChecksumError, type ChecksumFunction, type Client, RequestError } from "../../mod.ts";
import { readAll } from "./cases.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (text: string) => new TextEncoder().encode(text);
const hex = (bytes: Uint8Array) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const fromHex = (text: string) => new Uint8Array(text.match(/../g)?.map((byte) => parseInt(byte, 16)) ?? []);
const SMALL = { slotBytes: 64, numSlots: 8 };

/** AES-CMAC (RFC 4493): the checksum of somebody who trusts nobody. */
function aesCmac(key: Uint8Array, message: Uint8Array): Uint8Array {
  const encrypt = (block: Uint8Array) => {
    const cipher = createCipheriv("aes-128-ecb", key, null);
    return cipher.setAutoPadding(false).update(block);
  };
  const double = (block: Uint8Array) => {
    const twice = block.map((byte, i) => (byte << 1) | (block[i + 1] ?? 0) >> 7);
    if (block[0] & 0x80) twice[15] ^= 0x87;
    return twice;
  };
  const whole = message.length > 0 && message.length % 16 === 0;
  const padded = new Uint8Array(Math.max(16, Math.ceil(message.length / 16) * 16));
  padded.set(message);
  if (!whole) padded[message.length] = 0x80;
  const once = double(new Uint8Array(encrypt(new Uint8Array(16)))), mask = whole ? once : double(once);
  const last = padded.length - 16;
  for (let i = 0; i < 16; i++) padded[last + i] ^= mask[i];
  let state = new Uint8Array(16);
  for (let at = 0; at < padded.length; at += 16) {
    state = new Uint8Array(encrypt(state.map((byte, i) => byte ^ padded[at + i])));
  }
  return state;
}

const KEY = fromHex("2b7e151628aed2a6abf7158809cf4f3c");
const cmac: ChecksumFunction = (checksum, ...parts) => {
  checksum.set(aesCmac(KEY, new Uint8Array(parts.flatMap((part) => [...part]))));
};

/** Name of a case, and what is done with a client on a server of its own. */
export const catalogueCases: Record<
  string,
  (client: Client, connect: () => Promise<Client>) => Promise<void>
> = {
  async "a message may be held by several, and is let go with the last"(client) {
    const publisher = await client.createPublisher("/shared", SMALL);
    const subscriber = await client.createSubscriber("/shared", { maxActiveMessages: 2 });
    publisher.publish(bytes("one"));
    publisher.publish(bytes("two"));
    const message = subscriber.read()!;
    const first = message.share(), second = message.share();
    assert.equal(subscriber.numActiveMessages, 1);
    message.release();
    message.release();
    assert.throws(() => message.share(), /it was released/);
    for (let i = 0; i < 20; i++) publisher.publish(bytes("more"));
    first.release();
    first.release();
    assert.equal(text(second.message.data), "one");
    assert(message.held);
    {
      using other = subscriber.read()!;
      assert.equal(other === message, false);
    }
    second.release();
    assert(!message.held);
    assert.equal(subscriber.numActiveMessages, 0);
    const { timestampNs } = subscriber.readNewest()!;
    using found = subscriber.find(timestampNs);
    assert.equal(found, null, "it is held");
  },

  async "what was shared is let go once, whoever is last"(client) {
    const publisher = await client.createPublisher("/shared", { ...SMALL, reliable: true, numSlots: 3 });
    const subscriber = await client.createSubscriber("/shared", { reliable: true });
    for (let i = 0; i < 20; i++) {
      await publisher.send(bytes(String(i)));
      using message = subscriber.read()!;
      using share = message.share();
      if (i % 2 === 0) share.release();
      assert.equal(text(message.data), String(i));
    }
  },

  async "a slot that is used again has another message to who reads the newest"(client) {
    const publisher = await client.createPublisher("/reused", { ...SMALL, numSlots: 3 });
    const subscriber = await client.createSubscriber("/reused");
    publisher.publish(bytes("first"));
    const first = subscriber.readNewest()!, { slotId, ordinal } = first;
    first.release();
    for (let round = 0;; round++) {
      assert(round < 4, "the slot is used again");
      publisher.publish(bytes("newest"));
      using newest = subscriber.readNewest()!;
      assert(newest.ordinal > ordinal);
      assert.equal(text(newest.data), "newest");
      if (newest.slotId === slotId) break;
    }
  },

  async "both ends know the channel's type and sizes, also what only one of them said"(client) {
    const early = await client.createSubscriber("/known");
    assert.deepEqual([early.numSlots, early.slotBytes, text(early.type)], [0, 0, ""]);
    const options = { ...SMALL, slotBytes: 100, checksumBytes: 20, metadataBytes: 40, type: "Imu" };
    const publisher = await client.createPublisher("/known", options);
    publisher.publish(bytes("x"));
    assert(await early.wait());
    const late = await client.createSubscriber("/known");
    for (const subscriber of [early, late]) {
      const { numSlots, slotBytes, checksumBytes, metadataBytes, type } = subscriber;
      assert.deepEqual([numSlots, slotBytes, checksumBytes, metadataBytes, text(type)], [
        8,
        128,
        20,
        40,
        "Imu",
      ]);
    }
    assert.deepEqual([publisher.slotBytes, publisher.numSlots, text(publisher.type)], [128, 8, "Imu"]);
    const plain = await client.createSubscriber("/plain");
    const usual = await client.createPublisher("/plain", SMALL);
    usual.publish(bytes("y"));
    assert(await plain.wait());
    assert.deepEqual([plain.checksumBytes, plain.metadataBytes, plain.type.length], [4, 0, 0]);
  },

  async "a cryptographic checksum finds what was changed in message and metadata"(client) {
    for (
      const [length, mac] of [[0, "bb1d6929e95937287fa37d129b756746"], [
        16,
        "070a16b46b4d4144f79bdd9dd04a287c",
      ], [
        40,
        "dfa66747de9ae63030ca32611497c827",
      ], [64, "51f0bebf7e3b9d92fc49741779363cfe"]] as const
    ) {
      const vector = fromHex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411" +
          "e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
      );
      assert.equal(hex(aesCmac(KEY, vector.subarray(0, length))), mac);
    }
    const sizes = { checksumBytes: 16, metadataBytes: 24 };
    const publisher = await client.createPublisher("/mac", { ...SMALL, ...sizes, checksum: cmac });
    const subscriber = await client.createSubscriber("/mac", { checksum: cmac });
    const lenient = await client.createSubscriber("/mac", { checksum: cmac, passChecksumErrors: true });
    const vandal = await client.createSubscriber("/mac", { writable: true });
    publisher.publish(bytes("whole"), bytes("meta"));
    assert.deepEqual([readAll(subscriber), readAll(lenient), readAll(vandal)], [["whole"], ["whole"], [
      "whole",
    ]]);
    for (const part of ["data", "metadata"] as const) {
      publisher.publish(bytes("broken"), bytes("meta"));
      {
        using message = vandal.read()!;
        message[part][1] ^= 1;
      }
      assert.throws(() => subscriber.read(), ChecksumError);
      using message = lenient.read()!;
      assert(message.checksumError);
    }
  },

  async "virtual channels have the sizes of their multiplexer, whoever comes first"(client) {
    const sizes = { mux: "/mux", checksumBytes: 20, metadataBytes: 50 };
    const early = await client.createSubscriber("/v/early", { mux: "/mux" });
    const first = await client.createPublisher("/v/a", { ...SMALL, ...sizes, checksum: true });
    const late = await client.createSubscriber("/v/b", { mux: "/mux" });
    assert.deepEqual([late.checksumBytes, late.metadataBytes], [20, 50]);
    const second = await client.createPublisher("/v/b", { ...SMALL, ...sizes });
    const third = await client.createPublisher("/v/early", { ...SMALL, ...sizes });
    const all = await client.createSubscriber("/mux", { checksum: true });
    for (const [i, publisher] of [first, second, third].entries()) {
      assert(publisher.publish(bytes(String(i)), new Uint8Array(50).fill(i)));
    }
    for (const [subscriber, expected] of [[all, [0, 1, 2]], [late, [1]], [early, [2]]] as const) {
      assert(await subscriber.wait());
      const seen: number[] = [];
      subscriber.processAll(({ metadata, data }) => {
        assert(metadata.every((byte) => byte === metadata[0]) && text(data) === String(metadata[0]));
        seen.push(metadata[0]);
      });
      assert.deepEqual(seen, expected);
    }
    await assert.rejects(
      client.createPublisher("/v/c", { ...SMALL, ...sizes, checksumBytes: 32 }),
      RequestError,
    );
    await assert.rejects(
      client.createPublisher("/v/d", { ...SMALL, ...sizes, metadataBytes: 51 }),
      RequestError,
    );
  },

  async "a checksum does not cover what bridges write in front of it, nor the padding behind"(client) {
    for (const checksumBytes of [4, 20]) {
      const channel = `/padded_${checksumBytes}`;
      const sizes = { checksumBytes, metadataBytes: 3 };
      const publisher = await client.createPublisher(channel, { ...SMALL, ...sizes, checksum: true });
      const subscriber = await client.createSubscriber(channel, { checksum: true });
      const vandal = await client.createSubscriber(channel, { writable: true });
      publisher.publish(bytes("whole"), bytes("abc"));
      {
        using message = vandal.read()!;
        const { buffer, byteOffset } = message.data;
        const prefix = new Uint8Array(buffer, byteOffset - (checksumBytes === 4 ? 64 : 128));
        prefix.fill(0xee, 0, 4);
        prefix.fill(0xee, 48 + checksumBytes + 3, checksumBytes === 4 ? 64 : 128);
      }
      assert.deepEqual(readAll(subscriber), ["whole"]);
    }
  },

  async "publishers at work at once get their messages through, each in its order"(client, connect) {
    await using other = await connect();
    for (const arena of [0, 64_000]) {
      const channel = `/many_${arena}`, count = 200;
      const shape = { slotBytes: 64, numSlots: 32, reliable: true, subscriberQueueArenaBytes: arena };
      const publishers = [
        await client.createPublisher(channel, shape),
        await client.createPublisher(channel, shape),
        await other.createPublisher(channel, shape),
      ];
      const subscriber = await other.createSubscriber(channel, { reliable: true });
      const sending = publishers.map(async (publisher, who) => {
        for (let i = 0; i < count; i++) await publisher.send(bytes(`${who}.${i}`));
      });
      const next = publishers.map(() => 0);
      for await (const message of subscriber) {
        const [who, i] = text(message.data).split(".").map(Number);
        assert.equal(i, next[who]++);
        if (next.every((sent) => sent === count)) break;
      }
      await Promise.all(sending);
    }
  },

  async "publishers and subscribers come and go while others publish"(client, connect) {
    await using other = await connect();
    const publisher = await client.createPublisher("/churn", { slotBytes: 64, numSlots: 32 });
    const stays = await client.createSubscriber("/churn");
    let sent = 0;
    for (let round = 0; round < 20; round++) {
      const joining = other.createSubscriber("/churn");
      const second = other.createPublisher("/churn", SMALL);
      for (let i = 0; i < 5; i++) if (publisher.publish(bytes("x"))) sent++;
      const joined = await joining;
      (await second).publish(bytes("y"));
      sent++;
      await Promise.all([joined.close(), (await second).close()]);
      readAll(stays);
    }
    const [{ totalMessages }] = await client.channelStats("/churn");
    assert.equal(totalMessages, sent);
  },

  async "a message has a byte at least"(client) {
    const publisher = await client.createPublisher("/empty", SMALL);
    const subscriber = await client.createSubscriber("/empty");
    assert(publisher.getBuffer() !== null);
    assert.throws(() => publisher.publish(0), /a message has 1 to 64 bytes/);
    assert.throws(() => publisher.publish(new Uint8Array()), /a message has 1 to 64 bytes/);
    assert.equal(subscriber.read(), null);
  },

  async "who publishes can wait too: with an end, with another fd, and not at all if nobody may hold it up"(
    client,
  ) {
    const unreliable = await client.createPublisher("/free", SMALL);
    assert.equal(await unreliable.wait({ timeoutMs: 0 }), true);
    assert(unreliable.pollFd >= 0);
    const publisher = await client.createPublisher("/full", { ...SMALL, reliable: true, numSlots: 3 });
    const subscriber = await client.createSubscriber("/full", { reliable: true });
    while (publisher.publish(bytes("x")));
    assert.equal(await publisher.wait({ timeoutMs: 1 }), false);
    using fd = createEventFd();
    const waiting = publisher.wait({ fd: fd.number });
    signal(fd.number);
    assert.equal(await waiting, false);
    assert.equal(publisher.waitSync({ fd: fd.number }), false);
    readAll(subscriber);
    assert.equal(await publisher.wait({ fd: fd.number }), true);
  },

  async "a refusal for want of slots says who has them"(client, connect) {
    await using other = await connect();
    await client.createPublisher("/small", { ...SMALL, numSlots: 4 });
    await other.createSubscriber("/small", { maxActiveMessages: 2 });
    for (
      const asked of [
        other.createPublisher("/small", { ...SMALL, numSlots: 4 }),
        other.createSubscriber("/small"),
      ]
    ) {
      await assert.rejects(asked, (error) => {
        assert(error instanceof RequestError);
        assert.match(error.reason, new RegExp(`publishers=\\[\\{pid=${Deno.pid}, client="case"`));
        assert.match(error.reason, new RegExp(`subscribers=\\[\\{pid=${Deno.pid}, client="case"`));
        return true;
      });
    }
  },

  async "leases of all virtual channels are capacity of their multiplexer"(client) {
    const shape = { ...SMALL, numSlots: 6, mux: "/leased" };
    await client.createPublisher("/leased/a", { ...shape, maxOutstandingLeases: 2 });
    await client.createPublisher("/leased/b", { ...shape, maxOutstandingLeases: 3 });
    await assert.rejects(client.createPublisher("/leased/c", shape), /reserving 6 slot leases/);
  },

  async "a lease that is not published goes back, and others find its slot"(client) {
    const publisher = await client.createPublisher("/lease", {
      ...SMALL,
      numSlots: 4,
      maxOutstandingLeases: 2,
    });
    const slots = new Set<number>();
    for (let i = 0; i < 10; i++) {
      using lease = publisher.lease()!;
      slots.add(lease.slotId);
    }
    assert(slots.size <= 4);
    const subscriber = await client.createSubscriber("/lease");
    assert.equal(subscriber.read(), null);
  },
};
