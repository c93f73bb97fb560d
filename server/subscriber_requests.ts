/** CreateSubscriber, GetTriggers and RemoveSubscriber (specification, sections 2.4 to 2.6). */

import type { CreateSubscriberRequest, GetTriggersRequest } from "../proto/subspace_pb.ts";
import { Limit } from "../shm/layout.ts";
import { QueueArenaFullError } from "../shm/registry.ts";
import { type Answer, FdList } from "./answer.ts";
import { capacityProblem } from "./capacity.ts";
import type { Channel } from "./channel.ts";
import type { ChannelTable } from "./channel_table.ts";
import { DEFAULT_CHECKSUM_BYTES, DEFAULT_METADATA_BYTES, type PhysicalChannel } from "./physical_channel.ts";
import { retirementPipes, sleepers, subscribersOf } from "./publisher_requests.ts";
import { isOrphanOf } from "./processes.ts";
import { RequestError, requestError } from "./request_error.ts";
import { checkType, checkVirtuality, findTarget, makeChannel } from "./topology.ts";
import {
  type Client,
  findGranted,
  isUnchanged,
  mayBeMeant,
  type Publisher,
  type Subscriber,
} from "./users.ts";

/** The id that asks for a new subscriber. */
const NEW = -1;

/**
 * Adds a subscriber; or tells one what has become of its channel; or gives an orphan back to its client. Nothing has
 * changed where it throws.
 */
export function createSubscriber(
  table: ChannelTable,
  client: Client,
  request: CreateSubscriberRequest,
): Answer {
  checkQueueSize(request);
  const { channelName, type, isReliable } = request;
  const target = findTarget(table, request, "subscriber");
  const { channel: known, physical } = target;
  if (known !== null) checkType(channelName, known.physical.type, type);
  checkVirtuality(known, request, "subscriber");
  const granted = findGranted(known?.subscribers.values() ?? [], request.requestToken);
  const id = request.subscriberId === NEW ? granted?.id ?? NEW : request.subscriberId;
  if (id !== NEW) return comeBack(table, client, known, id, request);

  checkOptions(physical, request);
  const activeMessages = Math.max(request.maxActiveMessages, 0);
  const problem = isReliable
    ? null
    : capacityProblem(physical, physical?.layout.numSlots ?? 0, { activeMessages, slotLeases: 0 });
  if (problem !== null) {
    throw new RequestError(
      `Insufficient capacity to add a new subscriber to channel ${channelName}: ${problem}`,
    );
  }
  const placeholder = {
    layout: {
      numSlots: 0,
      slotBytes: 0,
      checksumBytes: DEFAULT_CHECKSUM_BYTES,
      metadataBytes: DEFAULT_METADATA_BYTES,
    },
    queueArenaBytes: 0,
    type,
  };
  const channel = makeChannel(table, request, target, placeholder);
  try {
    channel.physical.maxSubscribers ??= request.maxSubscribers;
    // A new virtual channel has no say in the type of a multiplexer that exists.
    if (known !== null) applyType(table, channel.physical, type);
    table.replicateOptions(channel.physical);
    const subscriber = table.addSubscriber(channel, client, {
      isReliable,
      isBridge: request.isBridge,
      forTunnel: request.forTunnel,
      maxActiveMessages: activeMessages,
      subscriberQueueSize: request.subscriberQueueSize,
      processId: request.processId,
      requestToken: request.requestToken,
      doorbell: request.doorbell,
    });
    return respond(subscriber);
  } catch (error) {
    table.removeIfEmpty(channel);
    if (error instanceof QueueArenaFullError) throw requestError("RESOURCE_EXHAUSTED", error.message);
    throw error;
  }
}

function checkQueueSize({ subscriberQueueSize }: CreateSubscriberRequest): void {
  if (subscriberQueueSize < 0) throw new RequestError("subscriber_queue_size must be >= 0");
  if (subscriberQueueSize > Limit.queueEntries) {
    throw new RequestError(`subscriber_queue_size must be <= ${Limit.queueEntries}`);
  }
}

/**
 * A subscriber that exists: the request's options count for nothing, as not all clients repeat them. Where the
 * channel is a placeholder no more, the response says what it is now.
 */
function comeBack(
  table: ChannelTable,
  client: Client,
  channel: Channel | null,
  id: number,
  request: CreateSubscriberRequest,
): Answer {
  const subscriber = channel?.subscribers.get(id);
  if (
    subscriber === undefined || !mayBeMeant(subscriber, request.requestToken) ||
    (subscriber.client !== client && !isOrphanOf(table.host, subscriber, client, request.requestToken))
  ) {
    throw requestError("INTERNAL", "Invalid user id");
  }
  applyType(table, subscriber.channel.physical, request.type);
  if (subscriber.client === null) table.reclaim(subscriber, client, request);
  // Whatever has happened to the control block since, publishers know of it now.
  subscriber.channel.physical.registry.addSubscriber(subscriber.id, subscriber.channel.vchanId, false);
  return respond(subscriber, isUnchanged(subscriber, request));
}

/** What the first subscriber fixes for all who follow, on a multiplexer as a whole. */
function checkOptions(physical: PhysicalChannel | null, request: CreateSubscriberRequest): void {
  const { channelName, mux, maxSubscribers } = request;
  const name = physical?.name ?? (mux || channelName);
  if (maxSubscribers < 0) {
    throw requestError(
      "INVALID_ARGUMENT",
      `Invalid max_subscribers ${maxSubscribers} for subscriber on channel ${name}: value must be non-negative`,
    );
  }
  const known = physical?.maxSubscribers ?? null;
  if (known !== null && known !== maxSubscribers) {
    throw requestError(
      "INVALID_ARGUMENT",
      `Inconsistent max_subscribers for subscriber on channel ${name}: already ${known}, not ${maxSubscribers}`,
    );
  }
  if (maxSubscribers > 0 && (physical?.census.subscribers ?? 0) >= maxSubscribers) {
    throw new RequestError(
      `Channel ${channelName} already has the maximum number of subscribers (${maxSubscribers})`,
    );
  }
}

/** A type that is named late. */
function applyType(table: ChannelTable, physical: PhysicalChannel, type: Uint8Array): void {
  if (physical.type.length > 0 || type.length === 0) return;
  physical.type = type;
  table.settingsChanged(physical);
}

function respond({ channel, record, id, queueCapacity }: Subscriber, unchanged = false): Answer {
  const { physical } = channel, { layout } = physical, fds = new FdList();
  const own = unchanged ? { unchanged } : {
    ccbFdIndex: fds.add(physical.blocks.ccbFd),
    bcbFdIndex: fds.add(physical.blocks.bcbFd),
    triggerFdIndex: fds.add(record.trigger),
    pollFdIndex: fds.add(record.poll),
  };
  const publishers = [...reliablePublishersOf(channel)];
  const value = {
    channelId: physical.id,
    subscriberId: id,
    ...own,
    slotSize: physical.slotBytes,
    numSlots: layout.numSlots,
    reliablePubTriggerFdIndexes: fds.addTriggers(publishers),
    numPubUpdates: physical.counters.numPubUpdates,
    type: physical.type,
    vchanId: channel.vchanId,
    retirementFdIndexes: fds.addAll(retirementPipes(channel)),
    checksumSize: layout.checksumBytes,
    metadataSize: layout.metadataBytes,
    useSplitBuffers: physical.splitBuffers?.useSplitBuffers ?? false,
    subscriberQueueSize: queueCapacity,
    defaultSubscriberQueueSize: physical.defaultQueueCapacity,
    subscriberQueueArenaSize: BigInt(physical.queueArenaBytes),
    reliablePubTriggerSleepers: record.info.doorbell ? sleepers(publishers) : [],
  };
  return { response: { case: "createSubscriber", value }, fds: fds.fds };
}

/**
 * The reliable publishers that wait for subscribers of a channel. Those of a multiplexer hold up the
 * publishers of all its virtual channels (which the reference forgets to tell them).
 */
function* reliablePublishersOf(channel: Channel): Generator<Publisher> {
  for (const { publishers } of channel.isMultiplexer ? channel.physical.channels() : [channel]) {
    for (const publisher of publishers.values()) if (publisher.record.info.isReliable) yield publisher;
  }
}

/** All fds by which users of a channel wake each other, as they are now. */
export function getTriggers(table: ChannelTable, { channelName, doorbell }: GetTriggersRequest): Answer {
  const channel = table.find(channelName);
  if (channel === undefined) throw new RequestError(`No such channel ${channelName}`);
  const fds = new FdList(), publishers = [...reliablePublishersOf(channel)];
  const subscribers = [...subscribersOf(channel)];
  const value = {
    reliablePubTriggerFdIndexes: fds.addTriggers(publishers),
    subTriggerFdIndexes: fds.addTriggers(subscribers),
    retirementFdIndexes: fds.addAll(retirementPipes(channel)),
    reliablePubTriggerSleepers: doorbell ? sleepers(publishers) : [],
    subTriggerSleepers: doorbell ? sleepers(subscribers) : [],
  };
  return { response: { case: "getTriggers", value }, fds: fds.fds };
}
