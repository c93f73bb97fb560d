/** Each feature between our client and the C++ client, both ways, from one table. */

import assert from "node:assert/strict";
import type { Client, PublisherOptions, SubscriberOptions } from "../../mod.ts";
import { catalogueCases } from "../client/catalogue_cases.ts";
import { Files } from "../client/split_cases.ts";
import { until } from "../deployment.ts";
import { cppTest, type StartPeer } from "./cpp_server.ts";
import { checkPeerMessage, fillPeerMessage } from "./peer_messages.ts";

for (const [name, run] of Object.entries(catalogueCases)) {
  cppTest(`C++ server: ${name}`, ({ client, connect }) => run(client, connect));
}

/** How a feature is asked for on either side. */
interface Feature {
  readonly publisher?: Partial<PublisherOptions>;
  readonly publisherFlags?: readonly string[];
  readonly subscriber?: SubscriberOptions;
  readonly subscriberFlags?: readonly string[];
  /** Bytes of the messages, in turn. Default: 64. */
  readonly sizes?: readonly number[];
  /** Whether our publisher's payloads are in files of an allocator. */
  readonly allocator?: boolean;
  /** Whether messages are published by leases. */
  readonly leases?: boolean;
  /** Retirements that the publisher waits for at the end. */
  readonly retired?: number;
  /** Only so many of the messages reach a subscriber, as the last ones. */
  readonly keeps?: number;
}

const COUNT = 100;
/** Room for all messages: what is unreliable loses nothing either. */
const SHAPE = { slotBytes: 256, numSlots: COUNT + 20, local: true };

/** All that is virtual is named by both sides. */
const VIRTUAL = ["--mux=/m", "--vchan=5"];

const features: Record<string, Feature> = {
  "what is not reliable": {},
  "what is reliable": {
    publisher: { reliable: true, numSlots: 6 },
    publisherFlags: ["--reliable", "--slots=6"],
    subscriber: { reliable: true },
    subscriberFlags: ["--reliable"],
  },
  "a checksum": {
    publisher: { checksum: true },
    publisherFlags: ["--checksum"],
    subscriber: { checksum: true },
    subscriberFlags: ["--checksum"],
  },
  "room for a large checksum, and metadata behind it": {
    publisher: { checksum: true, checksumBytes: 200, metadataBytes: 77 },
    publisherFlags: ["--checksum", "--checksum_size=200", "--metadata=77"],
    subscriber: { checksum: true },
    subscriberFlags: ["--checksum", "--metadata"],
  },
  "metadata that fits the prefix": {
    publisher: { metadataBytes: 12 },
    publisherFlags: ["--metadata=12"],
    subscriberFlags: ["--metadata"],
  },
  "metadata as large as can be": {
    publisher: { metadataBytes: 65535 },
    publisherFlags: ["--metadata=65535"],
    subscriberFlags: ["--metadata"],
  },
  "slots that grow": { sizes: [16, 300, 5000, 100_000, 64] },
  "slots of a fixed size": {
    publisher: { fixedSize: true },
    publisherFlags: ["--fixed_size"],
    sizes: [256],
  },
  "a type": {
    publisher: { type: "Imu" },
    publisherFlags: ["--type=Imu"],
    subscriber: { type: "Imu" },
    subscriberFlags: ["--type=Imu"],
  },
  "a virtual channel": {
    publisher: { mux: "/m", vchanId: 5 },
    publisherFlags: VIRTUAL,
    subscriber: { mux: "/m", vchanId: 5 },
    subscriberFlags: VIRTUAL,
  },
  "split buffers of a virtual channel": {
    publisher: { mux: "/m", vchanId: 5, splitBuffers: true },
    publisherFlags: [...VIRTUAL, "--split"],
    subscriber: { mux: "/m", vchanId: 5 },
    subscriberFlags: VIRTUAL,
    sizes: [16, 5000],
  },
  "queues of the channel's size": {
    publisher: { subscriberQueueArenaBytes: 64_000 },
    publisherFlags: ["--arena=64000"],
  },
  "a queue with room for all": {
    publisher: { subscriberQueueArenaBytes: 64_000 },
    publisherFlags: ["--arena=64000"],
    subscriber: { queueSize: 200 },
    subscriberFlags: ["--queue=200"],
  },
  "a queue that keeps the newest": {
    publisher: { subscriberQueueArenaBytes: 64_000 },
    publisherFlags: ["--arena=64000"],
    subscriber: { queueSize: 3 },
    subscriberFlags: ["--queue=3"],
    keeps: 3,
  },
  leases: {
    publisher: { maxOutstandingLeases: 4 },
    publisherFlags: ["--lease", "--max_leases=4"],
    leases: true,
  },
  "leases through queues, and retirements": {
    publisher: { maxOutstandingLeases: 4, notifyRetirement: true, subscriberQueueArenaBytes: 64_000 },
    publisherFlags: ["--lease", "--max_leases=4", "--arena=64000"],
    leases: true,
    retired: 50,
  },
  retirements: { publisher: { notifyRetirement: true }, retired: 50 },
  "an announcement that only those see who ask for it": {
    publisher: { activate: true },
    publisherFlags: ["--activate"],
  },
  "a tunnel": {
    publisher: { tunnel: true },
    publisherFlags: ["--tunnel"],
    subscriber: { tunnel: true },
    subscriberFlags: ["--tunnel"],
  },
  limits: {
    publisher: { maxPublishers: 1 },
    publisherFlags: ["--max_publishers=1"],
    subscriber: { maxSubscribers: 1 },
    subscriberFlags: ["--max_subscribers=1"],
  },
  "several messages held": {
    subscriber: { maxActiveMessages: 5 },
    subscriberFlags: ["--max_active=5"],
  },
  "slots that are used again first": {
    publisher: { preferRetiredSlots: true },
    publisherFlags: ["--prefer_retired"],
  },
  "split buffers": { publisher: { splitBuffers: true }, publisherFlags: ["--split"], sizes: [16, 5000, 300] },
  "split buffers of an allocator": {
    allocator: true,
    publisherFlags: ["--memfd"],
    subscriberFlags: ["--memfd"],
    sizes: [16, 5000, 300],
  },
};

async function publish(client: Client, feature: Feature, files: Files): Promise<void> {
  const { publisher: asked = {}, sizes = [64], leases = false, retired = 0 } = feature;
  const ofFiles = "splitBuffers" in asked && asked.splitBuffers === undefined ? { splitBuffers: files } : {};
  const publisher = await client.createPublisher(
    "/f",
    { ...SHAPE, ...asked, ...ofFiles } as PublisherOptions,
  );
  await until("it has a subscriber", () => publisher.numSubscribers > 0);
  for (let sequence = 0; sequence < COUNT;) {
    const length = sizes[sequence % sizes.length];
    using lease = leases ? publisher.lease(length) : null;
    const buffer = leases ? lease?.buffer : publisher.getBuffer(length);
    if (buffer === undefined || buffer === null) {
      await publisher.wait();
      continue;
    }
    fillPeerMessage(buffer, length, sequence);
    (lease ?? publisher).metadata.fill(sequence);
    if (lease === null) publisher.publish(length);
    else lease.publish(length);
    sequence++;
  }
  if (retired === 0) return;
  let heard = 0;
  for await (const _ of publisher.retirements) if (++heard === retired) break;
}

async function toCpp(client: Client, peer: StartPeer, feature: Feature): Promise<void> {
  using files = new Files();
  const { subscriberFlags = [], keeps } = feature;
  // How much a queue overflows is up to time. It has the newest in the end, whatever it had before, or the newest and then
  // older ones, which count as read twice (specification, section 9.2, 34).
  const count = keeps ?? COUNT, missed = keeps === undefined ? "0" : "\\d+";
  const subscriber = peer("peer_sub", ...subscriberFlags, `--count=${count}`);
  await subscriber.line(/^ready$/);
  const published = publish(client, feature, files);
  await subscriber.line(new RegExp(`^received ${count} lost ${missed} torn 0 dup ${missed} `));
  await published;
}

async function fromCpp(client: Client, peer: StartPeer, feature: Feature): Promise<void> {
  const { publisherFlags = [], subscriber: asked = {}, sizes = [64], retired = 0, keeps = COUNT } = feature;
  const { slotBytes, numSlots } = SHAPE;
  const publisher = peer(
    "peer_pub",
    `--slots=${numSlots}`,
    `--slot_size=${slotBytes}`,
    `--sizes=${sizes}`,
    `--count=${COUNT}`,
    "--wait_subs=1",
    "--linger",
    ...(retired > 0 ? [`--retired=${retired}`] : []),
    ...publisherFlags,
  );
  await publisher.line(/^created$/);
  const subscriber = await client.createSubscriber("/f", asked);
  if (keeps < COUNT) await publisher.line(new RegExp(`^published ${COUNT}$`));
  let next = COUNT - keeps;
  for await (const message of subscriber) {
    assert.equal(checkPeerMessage(message.data), next);
    assert(message.metadata.every((byte) => byte === (next & 255)));
    if (++next === COUNT) break;
  }
  assert.equal(subscriber.drops, COUNT - keeps);
  if (retired > 0) await publisher.line(new RegExp(`^retired ${retired}$`));
}

for (const [name, feature] of Object.entries(features)) {
  cppTest(`${name}: from us to C++`, ({ client, peer }) => toCpp(client, peer, feature));
  cppTest(`${name}: from C++ to us`, ({ client, peer }) => fromCpp(client, peer, feature));
}
