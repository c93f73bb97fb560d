/** Dumps in bundles: the same state as one channel and one user at a time, in fewer messages. */

import assert from "node:assert/strict";
import { createMemory } from "../../ffi/memory_object.ts";
import type { Fd } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/unix_socket.ts";
import { create, type Init } from "../../proto/message.ts";
import {
  ClientBufferHandleMetadataProtoSchema,
  ShadowAddPublisherSchema,
  ShadowAddSubscriberSchema,
  ShadowCreateChannelSchema,
} from "../../proto/subspace.ts";
import type { ShadowBriefChannel } from "../../proto/subspace_pb.ts";
import {
  closeBriefDump,
  receiveBriefDumpSoFar,
  type SeenState,
  sendBriefDump,
} from "../../wire/brief_dump.ts";
import { receiveBundledDump, sendBriefBundles, sendBundledDump } from "../../wire/bundled_dump.ts";
import { Connection } from "../../wire/connection.ts";
import { receiveEvent, sendEvent } from "../../wire/shadow_link.ts";
import {
  channelFds,
  type ChannelRecord,
  channelRecord,
  closeDump,
  publisherRecord,
  putClientBuffer,
  putPublisher,
  putSubscriber,
  sendDump,
  type StateDump,
  subscriberRecord,
} from "../../wire/state_dump.ts";
import { withBalancedFds } from "../open_fds.ts";

/** Each a file of its own, to be told apart. */
function files(count: number): Fd[] {
  return Array.from({ length: count }, () => createMemory("any", 1));
}

function channel(
  channelName: string,
  numPublishers: number,
  numSubscribers: number,
  mux = "",
): ChannelRecord {
  const record = channelRecord(
    create(ShadowCreateChannelSchema, { channelName, mux, numSlots: 3, type: new Uint8Array([1, 2]) }),
    files(2),
  );
  for (let publisherId = 0; publisherId < numPublishers; publisherId++) {
    const notifyRetirement = publisherId % 2 === 1;
    const info = create(ShadowAddPublisherSchema, {
      channelName,
      publisherId,
      notifyRetirement,
      requestToken: 7n,
    });
    putPublisher(record, publisherRecord(info, files(notifyRetirement ? 4 : 2)));
  }
  for (let i = 0; i < numSubscribers; i++) {
    const subscriberId = numPublishers + i;
    const info = create(ShadowAddSubscriberSchema, { channelName, subscriberId, doorbell: true });
    putSubscriber(record, subscriberRecord(info, files(2)));
  }
  return record;
}

function state(...channels: ChannelRecord[]): StateDump {
  const named = channels.map((record) => [record.info.channelName, record] as const);
  return { sessionId: 5n, scb: files(1)[0], channels: new Map(named) };
}

/** A state in words, with which files its fds are. */
function wordsOf({ sessionId, scb, channels }: StateDump): unknown {
  const file = (fd: Fd | null) => fd?.stat().inode;
  return [
    sessionId,
    file(scb),
    [...channels.values()].map((record) => [
      record.info,
      [...record.publishers].map(([id, { info }]) => [id, info]),
      [...record.subscribers].map(([id, { info }]) => [id, info]),
      [...record.clientBuffers].map(([key, { metadata }]) => [key, metadata]),
      channelFds(record).map(file),
    ]),
  ];
}

const test = (name: string, run: (sender: Connection, receiver: Connection) => Promise<void>) =>
  Deno.test(name, () =>
    withBalancedFds(async () => {
      const [here, there] = socketPair();
      using sender = new Connection(here);
      using receiver = new Connection(there);
      await run(sender, receiver);
    }));

test("a state in bundles is the same, whatever is in it", async (sender, receiver) => {
  const split = channel("/split", 1, 1);
  for (const slotId of [1, 2]) {
    const metadata = create(ClientBufferHandleMetadataProtoSchema, { channelName: "/split", slotId });
    putClientBuffer(split, { metadata, fd: slotId === 1 ? files(1)[0] : null });
  }
  const small = Array.from({ length: 150 }, (_, i) => channel(`/small_${i}`, i % 3, i % 4));
  const sent = state(
    ...small.slice(0, 100),
    channel("/crowded", 40, 130),
    channel("/" + "n".repeat(20_000), 1, 1),
    split,
    channel("/mux", 0, 1),
    channel("/virtual", 2, 0, "/mux"),
    ...small.slice(100),
  );
  const [received] = await Promise.all([
    receiveBundledDump(receiver),
    sendBundledDump(sender, sent, 10_000),
  ]);
  assert.deepEqual(wordsOf(received), wordsOf(sent));
  closeDump(received);
  closeDump(sent);
});

test("a hundred channels take ten messages", async (sender, receiver) => {
  const sent = state(...Array.from({ length: 100 }, (_, i) => channel(`/channel_${i}`, 2, 2)));
  const sending = sendBundledDump(sender, sent, 10_000);
  const kinds = new Map<string, number>();
  while (!kinds.has("stateDone")) {
    const { message: { event }, fds } = (await receiveEvent(receiver))!;
    kinds.set(event.case!, 1 + (kinds.get(event.case!) ?? 0));
    for (const fd of fds) fd.close();
  }
  await sending;
  closeDump(sent);
  assert.deepEqual([...kinds.keys()], ["stateDump", "bundle", "stateDone"]);
  assert(kinds.get("bundle")! < 10, `${kinds.get("bundle")} bundles`);
});

test(
  "who asked for bundles also takes what a shadow sends that does not know them",
  async (sender, receiver) => {
    const sent = state(channel("/a", 2, 1), channel("/b", 0, 3));
    const [received] = await Promise.all([
      receiveBundledDump(receiver),
      sendDump(sender, sent, 10_000, true),
    ]);
    assert.deepEqual(wordsOf(received), wordsOf(sent));
    closeDump(received);
    closeDump(sent);
  },
);

/** What is seen of a state in brief, in words. */
function briefWordsOf({ sessionId, scb, channels }: SeenState): unknown {
  const file = (fd: Fd | null) => fd?.stat().inode;
  return [
    sessionId,
    file(scb),
    [...channels.values()].map(({ info, ccb, bcb, publishers, subscribers, clientBuffers }) => [
      info,
      [file(ccb), file(bcb)],
      [...publishers].map(([id, { info }]) => [id, info]),
      [...subscribers].map(([id, { info }]) => [id, info]),
      [...clientBuffers].map(([key, { metadata }]) => [key, metadata]),
    ]),
  ];
}

for (const [what, sendIt] of [["in bundles", sendBriefBundles], ["one by one", sendBriefDump]] as const) {
  test(`a state in brief is the same, its channels ${what}`, async (sender, receiver) => {
    const split = channel("/split", 1, 1);
    const metadata = create(ClientBufferHandleMetadataProtoSchema, { channelName: "/split", slotId: 1 });
    putClientBuffer(split, { metadata, fd: files(1)[0] });
    const small = Array.from({ length: 150 }, (_, i) => channel(`/small_${i}`, i % 3, i % 4));
    const sent = state(...small, channel("/" + "n".repeat(20_000), 1, 1), split, channel("/last", 1, 1));
    const [{ dump, failure, numChannels }] = await Promise.all([
      receiveBriefDumpSoFar(receiver),
      sendIt(sender, sent, 10_000),
    ]);
    assert.deepEqual([failure, numChannels], [null, 153]);
    assert.deepEqual(briefWordsOf(dump), briefWordsOf(sent));
    closeBriefDump(dump);
    closeDump(sent);
  });
}

test(
  "of a bundle in brief with a channel twice nothing is taken, and its fds are closed",
  async (sender, receiver) => {
    const bundle = (...names: string[]) => {
      const fds = files(2 * names.length);
      const channels = names.map((channelName) => ({ channel: { channelName } }));
      sendEvent(sender, { event: { case: "bundle", value: { channels, brief: true } } }, fds);
      for (const fd of fds) fd.close();
    };
    sendEvent(sender, { event: { case: "stateDump", value: { numChannels: 3 } } });
    bundle("/a");
    bundle("/b", "/c", "/b");
    const { dump, failure } = await receiveBriefDumpSoFar(receiver);
    assert.match(failure!.message, /^Cannot accept channel \/b twice in a state dump$/);
    assert.deepEqual([...dump.channels.keys()], ["/a"]);
    assert(!dump.channels.get("/a")!.ccb.closed);
    closeBriefDump(dump);
  },
);

const nonsense: readonly [what: string, channels: Init<ShadowBriefChannel>[], error: RegExp][] = [
  ["a channel twice", [{ channel: { channelName: "/a" } }, { channel: { channelName: "/a" } }], /twice/],
  [
    "a user of another channel",
    [{ channel: { channelName: "/a" }, subscribers: [{ channelName: "/b" }] }],
    /unknown channel \/b/,
  ],
];
for (const [what, channels, error] of nonsense) {
  test(`a bundle with ${what} is refused, and its fds are closed`, async (sender, receiver) => {
    const fds = files(4);
    sendEvent(sender, { event: { case: "stateDump", value: {} } });
    sendEvent(sender, { event: { case: "bundle", value: { channels } } }, fds);
    for (const fd of fds) fd.close();
    await assert.rejects(receiveBundledDump(receiver), error);
  });
}
