/** Following a channel from one memory to the next, and reading all that is in front of and behind a message. */

import assert from "node:assert/strict";
import { Client } from "../../client/client.ts";
import { ChannelFollower } from "../../inspect/follower.ts";
import { ChannelObserver } from "../../inspect/observer.ts";
import { look, type ShadowSight } from "../../inspect/sight.ts";
import { ChannelSubscription } from "../../inspect/subscription.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { Bcb, Ccb, Slot } from "../../shm/layout.ts";
import { Server } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { until } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { send } from "../shm/local_channel.ts";
import { RecordedShadow } from "./recorded_shadow.ts";
import { sightOf } from "./sights.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array<ArrayBuffer> | null) => new TextDecoder().decode(bytes!);

interface Stage {
  readonly server: string;
  readonly shadow: string;
  sight(): Promise<ShadowSight>;
  client(): Promise<Client>;
}

/** A server, its shadow, and clients. */
async function withSystem(run: (stage: Stage) => Promise<void>): Promise<void> {
  await withBalancedFds(async () => {
    const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
    const shadow = Shadow.start({ socket: shadowSocket });
    const server = await Server.start({ socket, shadowSocket });
    const clients: Client[] = [];
    try {
      await run({
        server: socket,
        shadow: shadowSocket,
        async sight() {
          const sight = await look(shadowSocket);
          assert.equal(sight.kind, "shadow");
          return sight as ShadowSight;
        },
        async client() {
          const client = await Client.connect({ socket });
          clients.push(client);
          return client;
        },
      });
    } finally {
      for (const client of clients) await client[Symbol.asyncDispose]();
      shadow.stop();
      await server.stop();
    }
  });
}

/** What is seen until so many messages are. */
async function seenBy(follower: ChannelFollower, count: number): Promise<string[]> {
  const seen: string[] = [];
  await until(`${count} messages are seen`, async () => {
    await follower.refresh();
    for (const { activation, payload } of follower.poll(true)) if (!activation) seen.push(decode(payload));
    return seen.length >= count;
  });
  return seen;
}

Deno.test("a channel is followed from its first publisher on, and when it is made again", () =>
  withSystem(async ({ sight, client }) => {
    const other = await client();
    await using _first = await other.createSubscriber("/a");
    using follower = new ChannelFollower(await sight(), "/a", 5000);
    assert.equal(follower.active, false);
    assert.deepEqual(follower.poll(true), []);
    const writer = await other.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
    writer.publish(encode("one"));
    assert.deepEqual(await seenBy(follower, 1), ["one"]);
    writer.publish(encode("long ".repeat(1000)));
    assert.equal((await seenBy(follower, 1))[0].length, 5000);
    await writer.close();
    await _first.close();
    const again = await other.createPublisher("/a", { slotBytes: 64, numSlots: 4 });
    again.publish(encode("two"));
    assert.deepEqual(await seenBy(follower, 1), ["two"]);
    assert.equal(follower.missed, 0);
  }));

Deno.test("a subscription sees each message, with its metadata, and is a subscriber", () =>
  withSystem(async ({ server, client }) => {
    const writer = await (await client()).createPublisher("/a", {
      slotBytes: 64,
      numSlots: 8,
      metadataBytes: 3,
    });
    using subscription = await ChannelSubscription.open(server, "/a");
    assert.equal(writer.numSubscribers, 1);
    writer.publish(encode("one"), new Uint8Array([1, 2, 3]));
    writer.publish(encode("two"), new Uint8Array([4]));
    const seen = subscription.poll(true).filter(({ activation }) => !activation);
    assert.deepEqual(
      seen.map(({ ordinal, payload, metadata }) => [ordinal, decode(payload), [...metadata]]),
      [[1, "one", [1, 2, 3]], [2, "two", [4, 0, 0]]],
    );
    assert(seen[0].timestampNs > 0 && subscription.missed === 0);
  }));

Deno.test("an observer sees metadata, and which messages only say that a publisher is there", () =>
  withSystem(async ({ sight, client }) => {
    const other = await client();
    const writer = await other.createPublisher("/a", {
      slotBytes: 64,
      numSlots: 8,
      metadataBytes: 3,
      reliable: true,
    });
    await using _reader = await other.createSubscriber("/a", { reliable: true });
    using shown = await sight();
    using observer = new ChannelObserver(shown, shown.dump.channels.get("/a")!, true);
    await until("there is a slot", () => writer.publish(encode("one"), new Uint8Array([1, 2, 3])));
    const seen = observer.poll(true);
    assert.deepEqual(
      seen.map((
        { activation, payload, metadata },
      ) => [activation, activation ? "" : decode(payload), [...metadata]]),
      [[true, "", [0, 0, 0]], [false, "one", [1, 2, 3]]],
    );
  }));

Deno.test("an observer reads split buffers: payloads and metadata, also when slots have grown", () =>
  withSystem(async ({ sight, client }) => {
    const other = await client();
    const writer = await other.createPublisher("/split", {
      slotBytes: 64,
      numSlots: 8,
      metadataBytes: 2,
      splitBuffers: true,
    });
    using follower = new ChannelFollower(await sight(), "/split", 60_000);
    writer.publish(encode("one"), new Uint8Array([1, 2]));
    writer.publish(encode("long ".repeat(1000)), new Uint8Array([3, 4]));
    const seen = follower.poll(true);
    assert.deepEqual(
      seen.map(({ payload, metadata }) => [payload!.length, [...metadata]]),
      [[3, [1, 2]], [5000, [3, 4]]],
    );
    assert.deepEqual([decode(seen[0].payload), follower.missed], ["one", 0]);
  }));

Deno.test("a length that no file has is no message", async () => {
  using shadow = new RecordedShadow();
  const publisher = shadow.publisher("/robot/odometry", 0);
  using sight = await sightOf(shadow);
  using observer = new ChannelObserver(sight, sight.dump.channels.get("/robot/odometry")!);
  send(publisher, "one");
  const { ccbFd, bcbFd } = shadow.blocks("/robot/odometry");
  using sizes = Mapping.map(bcbFd, Bcb.bytes);
  sizes.view.setBigUint64(Bcb.sizes, 1n << 40n, true);
  using slots = Mapping.map(ccbFd, Ccb.slots + Slot.bytes);
  slots.view.setBigUint64(Ccb.slots + Slot.messageSize, 1n << 30n, true);
  assert.deepEqual([observer.poll(true), observer.missed], [[], 1]);
});
