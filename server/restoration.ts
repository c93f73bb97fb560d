/** Making channels and users again from what a shadow kept (specification, section 3.5). */

import { getLogger } from "@logtape/logtape";
import { ControlBlocks } from "../shm/control_blocks.ts";
import { Limit } from "../shm/layout.ts";
import { Registry } from "../shm/registry.ts";
import type { ChannelCounters } from "../shm/system_control_block.ts";
import type { ChannelRecord } from "../wire/state_dump.ts";
import type { Channel } from "./channel.ts";
import { DEFAULT_CHECKSUM_BYTES, DEFAULT_METADATA_BYTES, PhysicalChannel } from "./physical_channel.ts";
import type { Publisher, Subscriber, User } from "./users.ts";

const log = getLogger(["subspace", "server"]);

const PREFIX_PART_BYTES_MAX = 0xffff;

/**
 * Checks what a record says of its channel and users, not its memory.
 *
 * @param isFree Whether a user id is not taken by a channel that shares the memory.
 */
export function checkRecord(record: ChannelRecord, isFree: (userId: number) => boolean): void {
  const { info, publishers, subscribers } = record;
  const fail = (what: string): never => {
    throw new Error(`Cannot recover channel ${info.channelName}: ${what}`);
  };
  for (const bytes of [info.checksumSize, info.metadataSize]) {
    if (bytes < 0 || bytes > PREFIX_PART_BYTES_MAX) {
      fail(`a prefix cannot have ${bytes} bytes of checksum or metadata`);
    }
  }
  if (info.slotSize < 0) fail(`a slot cannot have ${info.slotSize} bytes`);
  for (const id of [...publishers.keys(), ...subscribers.keys()]) {
    if (id < 0 || id >= Limit.users) fail(`${id} is no user id`);
    if (!isFree(id)) fail(`user id ${id} is taken`);
  }
  for (const id of publishers.keys()) {
    if (subscribers.has(id)) fail(`user id ${id} is a publisher and a subscriber`);
  }
}

/** A physical channel on the memory of a record. The record's fds belong to it unless this throws. */
export function physicalFromRecord(
  record: ChannelRecord,
  multiplexer: boolean,
  counters: ChannelCounters,
): PhysicalChannel {
  const { info } = record;
  const { channelName, numSlots } = info;
  const shape = { channelName, numSlots, queueArenaBytes: Number(info.subscriberQueueArenaSize) };
  const blocks = ControlBlocks.attach(shape, counters, record.ccb, record.bcb);
  try {
    new Registry(blocks).checkQueues();
  } catch (error) {
    blocks[Symbol.dispose]();
    throw error;
  }
  const checksumBytes = info.checksumSize || DEFAULT_CHECKSUM_BYTES, metadataBytes = info.metadataSize;
  const layout = { numSlots, slotBytes: info.slotSize, checksumBytes, metadataBytes };
  const physical = new PhysicalChannel(info.channelId, channelName, multiplexer, counters, layout, blocks);
  // The reference never tells a shadow of sizes other than the defaults: those may be anything.
  physical.prefixKnown = checksumBytes !== DEFAULT_CHECKSUM_BYTES || metadataBytes !== DEFAULT_METADATA_BYTES;
  physical.type = info.type;
  if (info.hasSplitBufferOptions) {
    const { useSplitBuffers, splitBuffersOverBridge } = info;
    physical.splitBuffers = { useSplitBuffers, splitBuffersOverBridge };
  }
  if (info.hasMaxPublishers) physical.maxPublishers = Math.max(info.maxPublishers, 0);
  if (info.hasMaxSubscribers) physical.maxSubscribers = Math.max(info.maxSubscribers, 0);
  physical.noteOptionsReplicated();
  for (const [key, buffer] of record.clientBuffers) physical.clientBuffers.set(key, buffer);
  return physical;
}

/** Adds the users of a record to its channel, as orphans. Nothing in the channel's memory changes: see `reconcile`. */
export function restoreUsers(channel: Channel, record: ChannelRecord): User[] {
  const { physical } = channel;
  const users: User[] = [];
  for (const [id, publisher] of record.publishers) {
    publisher.info.maxOutstandingSlotLeases = Math.max(publisher.info.maxOutstandingSlotLeases, 1);
    // Whoever made the pipe, a notification that nobody reads must not stop the server.
    publisher.retirement?.write.setNonBlocking(true);
    const claimedPid = publisher.info.processId;
    const user: Publisher = { kind: "publisher", id, channel, client: null, claimedPid, record: publisher };
    channel.publishers.set(id, user);
    users.push(user);
  }
  for (const [id, subscriber] of record.subscribers) {
    subscriber.info.maxActiveMessages = Math.max(subscriber.info.maxActiveMessages, 0);
    const claimedPid = subscriber.info.processId;
    const user: Subscriber = {
      kind: "subscriber",
      id,
      channel,
      client: null,
      claimedPid,
      record: subscriber,
      queueCapacity: 0,
    };
    channel.subscribers.set(id, user);
    users.push(user);
  }
  for (const user of users) {
    physical.userIds.reserve(user.id);
    physical.census.add(user);
  }
  return users;
}

/**
 * Gives a subscriber the queue that it asked for before there was memory for it. One that does not fit is no reason
 * to lose the subscriber: it reads from its bitset then, as without queues.
 */
export function giveQueue(registry: Registry, subscriber: Subscriber): void {
  const { id, channel, record } = subscriber, requested = record.info.subscriberQueueSize;
  try {
    subscriber.queueCapacity = registry.allocateQueue(id, requested);
  } catch (error) {
    log.warn(
      "Subscriber {id} on channel {channel} requested queue capacity {requested} but the publisher-provisioned " +
        "arena cannot fit it; using the bitset path: {reason}",
      { id, channel: channel.name, requested, reason: (error as Error).message },
    );
    registry.retireQueue(id);
    subscriber.queueCapacity = 0;
  }
}

/**
 * Makes a channel's memory agree with its users, whatever the moment was at which the last server died: subscribers are
 * there with their queues, queues and subscribers that belong to nobody go, and the counters say what is there. Changes
 * nothing where it agrees already.
 *
 * @throws {ControlBlockError} If the queue arena contradicts itself.
 */
export function reconcile(physical: PhysicalChannel): void {
  const users = [...physical.users()], { blocks, registry } = physical;
  for (const user of users) {
    if (user.kind === "publisher") continue;
    const known = !physical.isPlaceholder && blocks.hasSubscriber(user.id);
    giveQueue(registry, user);
    registry.addSubscriber(user.id, user.channel.vchanId, !known);
  }
  const count = (kind: User["kind"], reliable: boolean) =>
    users.filter((user) => user.kind === kind && (!reliable || user.record.info.isReliable)).length;
  const present = new Set(users.filter(({ kind }) => kind === "subscriber").map(({ id }) => id));
  for (const id of blocks.subscribers()) if (!present.has(id)) registry.removeSubscriber(id, false);
  registry.reconcileQueues();
  physical.counters.restate(
    count("publisher", false),
    count("publisher", true),
    count("subscriber", false),
    count("subscriber", true),
  );
}
