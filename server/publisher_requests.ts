/** CreatePublisher and RemovePublisher (specification, sections 2.3, 2.6). */

import type { Fd } from "../ffi/fd.ts";
import type { CreatePublisherRequest } from "../proto/subspace_pb.ts";
import { controlBlockBytes, Limit, Slot } from "../shm/layout.ts";
import { capacityProblem } from "./capacity.ts";
import type { Channel } from "./channel.ts";
import type { ChannelTable } from "./channel_table.ts";
import { type BufferLayout, DEFAULT_CHECKSUM_BYTES, type PhysicalChannel } from "./physical_channel.ts";
import { type Answer, FdList } from "./answer.ts";
import { isOrphanOf } from "./processes.ts";
import { RequestError, requestError } from "./request_error.ts";
import { checkType, checkVirtuality, findTarget, makeChannel, type Target } from "./topology.ts";
import {
  type Client,
  findGranted,
  isUnchanged,
  type Publisher,
  type Subscriber,
  type User,
} from "./users.ts";

/** Most bytes of a checksum, and of metadata. */
const PREFIX_PART_BYTES_MAX = 0xffff;

/** Adds a publisher, or gives an orphan back to its client. Nothing has changed where it throws. */
export function createPublisher(
  table: ChannelTable,
  client: Client,
  request: CreatePublisherRequest,
): Answer {
  checkSizes(request);
  const slotLeases = checkLeases(request);
  const target = findPublisherTarget(table, request);
  const { physical } = target;
  if (physical !== null) checkType(request.channelName, physical.type, request.type);
  checkQueueArena(target, request);
  checkAgreement(target, request);
  const orphan = findOrphan(table, target, client, request);
  checkOptions(physical, request, orphan);
  if (orphan !== null) return reclaim(table, client, orphan, request);

  const numSlots = physical === null || physical.isPlaceholder ? request.numSlots : physical.layout.numSlots;
  checkRoom(target, request, numSlots, slotLeases);
  const layout = checkLayout(physical, request, numSlots);
  const channel = prepareChannel(table, target, request, layout);
  try {
    applySettings(table, channel.physical, request, layout);
    const publisher = table.addPublisher(channel, client, {
      isReliable: request.isReliable,
      isLocal: request.isLocal,
      isBridge: request.isBridge,
      isFixedSize: request.isFixedSize,
      notifyRetirement: request.notifyRetirement,
      forTunnel: request.forTunnel,
      processId: request.processId,
      maxOutstandingSlotLeases: slotLeases,
      requestToken: request.requestToken,
      doorbell: request.doorbell,
    });
    return respond(publisher);
  } catch (error) {
    table.removeIfEmpty(channel);
    throw error;
  }
}

function checkSizes({ numSlots, slotSize, subscriberQueueArenaSize }: CreatePublisherRequest): void {
  if (numSlots <= 0 || slotSize <= 0) {
    throw new RequestError("num_slots and slot_size must be greater than 0");
  }
  if (numSlots > Math.floor(Limit.controlBlockBytes / Slot.bytes)) {
    throw requestError("RESOURCE_EXHAUSTED", "num_slots exceeds the channel control block limit");
  }
  if (controlBlockBytes(numSlots, 0) + Number(subscriberQueueArenaSize) > Limit.controlBlockBytes) {
    throw requestError("RESOURCE_EXHAUSTED", "channel control block exceeds the 1 GiB limit");
  }
}

/** 0 is what clients say that are older than leases. */
function checkLeases({ channelName, numSlots, maxOutstandingSlotLeases }: CreatePublisherRequest): number {
  const leases = maxOutstandingSlotLeases === 0 ? 1 : maxOutstandingSlotLeases;
  if (leases >= 1 && leases <= numSlots) return leases;
  throw new RequestError(
    `Invalid max_outstanding_slot_leases ${leases} for channel ${channelName}: value must be between 1 and ` +
      `num_slots (${numSlots})`,
  );
}

function findPublisherTarget(table: ChannelTable, request: CreatePublisherRequest): Target {
  const { channelName, mux } = request;
  const target = findTarget(table, request, "publisher");
  const { channel, physical } = target;
  if (channel === null && physical !== null && !physical.isPlaceholder) {
    checkMultiplexerArena(physical, request.subscriberQueueArenaSize);
  }
  if (mux === "" && channel?.isMultiplexer) {
    throw new RequestError(`Cannot create publisher to multiplexer channel ${channelName}`);
  }
  if (mux !== "" && channel !== null && !table.find(mux)?.isMultiplexer) {
    throw new RequestError(
      `Channel ${channelName} is not a multiplexer, but a multiplexer was specified for the publisher`,
    );
  }
  checkVirtuality(channel, request, "publisher");
  if (mux !== "" && request.notifyRetirement) {
    throw new RequestError("Virtual channels do not support notifying publishers of slot retirement");
  }
  return target;
}

function checkMultiplexerArena(physical: PhysicalChannel, wanted: bigint): void {
  if (wanted === BigInt(physical.queueArenaBytes)) return;
  throw requestError(
    "INTERNAL",
    `Inconsistent publisher parameters for mux ${physical.name}: subscriber queue arena size is ` +
      `${physical.queueArenaBytes}, not ${wanted}`,
  );
}

/** The arena is a part of the memory's layout: it stays, publishers or not. */
function checkQueueArena({ physical }: Target, request: CreatePublisherRequest): void {
  if (physical === null || physical.isPlaceholder) return;
  if (request.subscriberQueueArenaSize === BigInt(physical.queueArenaBytes)) return;
  throw new RequestError(
    `Inconsistent publisher parameters for channel ${request.channelName}: subscriber queue arena size is ` +
      `${physical.queueArenaBytes}, not ${request.subscriberQueueArenaSize}`,
  );
}

/**
 * Publishers agree on what a channel is.
 *
 * Whether it is local or of fixed size is for the publishers of the same name to agree on. (The reference lets a
 * new virtual channel be neither once its multiplexer has a publisher; nobody relies on that refusal.)
 */
function checkAgreement({ channel, physical }: Target, request: CreatePublisherRequest): void {
  if (physical === null || physical.isPlaceholder) return;
  const { channelName, numSlots, slotSize } = request;
  const others = channel !== null && channel.publishers.size > 0;
  const disagree = (what: string) =>
    new RequestError(
      `Inconsistent publisher parameters for channel ${channelName}: all publishers must be either ${what}`,
    );
  if (others && request.isFixedSize !== channel.isFixedSize) throw disagree("fixed size or not");
  if (numSlots > physical.layout.numSlots) {
    throw new RequestError(
      `Failed to add publisher to ${channelName} with more slots (${numSlots}) than the current number ` +
        `(${physical.layout.numSlots})`,
    );
  }
  const slotBytes = physical.slotBytes;
  if (others && channel.isFixedSize && slotBytes !== 0 && slotSize > slotBytes) {
    throw new RequestError(
      `Failed to add publisher to fixed size channel ${channelName} with different slot size (${slotSize}) than the ` +
        `current size (${slotBytes})`,
    );
  }
  if (others && request.isLocal !== channel.isLocal) throw disagree("local or not");
}

/** What the first publisher fixes for all who follow, on a multiplexer as a whole. */
function checkOptions(
  physical: PhysicalChannel | null,
  request: CreatePublisherRequest,
  orphan: Publisher | null,
): void {
  const { maxPublishers, useSplitBuffers, splitBuffersOverBridge } = request;
  const name = physical?.name ?? (request.mux || request.channelName);
  const invalid = (text: string) => requestError("INVALID_ARGUMENT", text);
  if (maxPublishers < 0) {
    throw invalid(
      `Invalid max_publishers ${maxPublishers} for publisher on channel ${name}: value must be non-negative`,
    );
  }
  const known = physical?.maxPublishers ?? null;
  if (known !== null && known !== maxPublishers) {
    throw invalid(
      `Inconsistent max_publishers for publisher on channel ${name}: already ${known}, not ${maxPublishers}`,
    );
  }
  if (request.publisherId < 0 && orphan === null) checkLimit(physical, request);
  const split = physical?.splitBuffers ?? null;
  if (split !== null && split.useSplitBuffers !== useSplitBuffers) {
    throw invalid(`Inconsistent split-buffer mode for publisher on channel ${name}`);
  }
  if (split !== null && split.splitBuffersOverBridge !== splitBuffersOverBridge) {
    throw invalid(`Inconsistent bridge split-buffer mode for publisher on channel ${name}`);
  }
}

function checkLimit(
  physical: PhysicalChannel | null,
  { channelName, maxPublishers }: CreatePublisherRequest,
): void {
  if (maxPublishers === 0 || (physical?.census.publishers ?? 0) < maxPublishers) return;
  throw new RequestError(
    `Channel ${channelName} already has the maximum number of publishers (${maxPublishers})`,
  );
}

function findOrphan(
  table: ChannelTable,
  { channel }: Target,
  client: Client,
  request: CreatePublisherRequest,
): Publisher | null {
  if (channel === null) return null;
  const { publishers } = channel, { publisherId, requestToken } = request;
  const publisher = publishers.get(publisherId);
  if (publisher !== undefined && isOrphanOf(table.host, publisher, client, requestToken)) return publisher;
  // One that is unknown by its id got another one, from a server that died before it could say so.
  return findGranted(publishers.values(), requestToken);
}

function reclaim(
  table: ChannelTable,
  client: Client,
  orphan: Publisher,
  request: CreatePublisherRequest,
): Answer {
  const { physical } = orphan.channel;
  // What the reference's shadows keep of the layout may be wrong: then its publisher knows better.
  const { layout } = physical;
  applySettings(
    table,
    physical,
    request,
    physical.prefixKnown ? layout : checkLayout(physical, request, layout.numSlots),
  );
  table.reclaim(orphan, client, request);
  physical.registry.setHazard(orphan.id, request.activeQueuePublishDepth);
  return respond(orphan, orphan.id === request.publisherId && isUnchanged(orphan, request));
}

function checkRoom(
  target: Target,
  request: CreatePublisherRequest,
  numSlots: number,
  slotLeases: number,
): void {
  const { physical } = target;
  // Also for one that claims an id in vain.
  checkLimit(physical, request);
  const problem = request.isReliable
    ? null
    : capacityProblem(physical, numSlots, { activeMessages: 0, slotLeases });
  if (problem !== null) {
    throw new RequestError(
      `Insufficient capacity to add a new publisher to channel ${request.channelName}: ${problem}`,
    );
  }
  if (physical?.userIds.full) throw requestError("INTERNAL", "No capacity for another publisher");
}

function prefixParts({ checksumSize, metadataSize }: CreatePublisherRequest) {
  return {
    checksumBytes: checksumSize <= 0 ? DEFAULT_CHECKSUM_BYTES : checksumSize,
    metadataBytes: Math.max(metadataSize, 0),
  };
}

/**
 * The layout that the buffers have, or will have.
 *
 * Once a publisher has decided about the prefix it stays so. (The reference takes the default sizes for undecided,
 * and lets a second publisher change the layout of buffers in use: section 9.2, 10.)
 */
function checkLayout(
  physical: PhysicalChannel | null,
  request: CreatePublisherRequest,
  numSlots: number,
): BufferLayout {
  const parts = prefixParts(request);
  const check = (name: string, bytes: number, known: number | undefined) => {
    if (bytes > PREFIX_PART_BYTES_MAX) {
      throw new RequestError(
        `${name} ${bytes} exceeds maximum ${PREFIX_PART_BYTES_MAX} for channel ${request.channelName}`,
      );
    }
    if (physical?.prefixKnown && known !== bytes) {
      throw new RequestError(
        `Inconsistent ${name} for channel ${request.channelName}: already ${known}, not ${bytes}`,
      );
    }
  };
  check("checksum_size", parts.checksumBytes, physical?.layout.checksumBytes);
  check("metadata_size", parts.metadataBytes, physical?.layout.metadataBytes);
  const slotBytes = physical === null || physical.isPlaceholder
    ? request.slotSize
    : physical.layout.slotBytes;
  return { numSlots, slotBytes, ...parts };
}

/** The channel, with real memory. */
function prepareChannel(
  table: ChannelTable,
  target: Target,
  request: CreatePublisherRequest,
  layout: BufferLayout,
): Channel {
  const queueArenaBytes = Number(request.subscriberQueueArenaSize);
  if (target.physical?.isPlaceholder) {
    if (target.physical.type.length === 0) target.physical.type = request.type;
    table.remap(target.physical, layout, queueArenaBytes);
  }
  return makeChannel(table, request, target, { layout, queueArenaBytes, type: request.type });
}

/** Keeps what the request decides, and tells the shadows of it. */
function applySettings(
  table: ChannelTable,
  physical: PhysicalChannel,
  request: CreatePublisherRequest,
  layout: BufferLayout,
): void {
  const { checksumBytes, metadataBytes } = physical.layout;
  const changed = (physical.type.length === 0 && request.type.length > 0) ||
    checksumBytes !== layout.checksumBytes || metadataBytes !== layout.metadataBytes;
  if (physical.type.length === 0) physical.type = request.type;
  physical.layout = layout;
  physical.prefixKnown = true;
  physical.maxPublishers ??= request.maxPublishers;
  const { useSplitBuffers, splitBuffersOverBridge } = request;
  physical.splitBuffers ??= { useSplitBuffers, splitBuffersOverBridge };
  if (changed) table.settingsChanged(physical);
  table.replicateOptions(physical);
}

function respond(publisher: Publisher, unchanged = false): Answer {
  const { channel, record, id } = publisher, { physical } = channel, fds = new FdList();
  const own = unchanged ? { unchanged } : {
    ccbFdIndex: fds.add(physical.blocks.ccbFd),
    bcbFdIndex: fds.add(physical.blocks.bcbFd),
    pubPollFdIndex: fds.add(record.poll),
    pubTriggerFdIndex: fds.add(record.trigger),
  };
  const subscribers = [...subscribersOf(channel)];
  const value = {
    channelId: physical.id,
    publisherId: id,
    ...own,
    subTriggerFdIndexes: fds.addTriggers(subscribers),
    numSubUpdates: physical.counters.numSubUpdates,
    type: physical.type,
    vchanId: channel.vchanId,
    retirementFdIndex: record.retirement === null ? -1 : fds.add(record.retirement.read),
    retirementFdIndexes: fds.addAll(retirementPipes(channel)),
    subscriberQueueSize: physical.defaultQueueCapacity,
    subscriberQueueArenaSize: BigInt(physical.queueArenaBytes),
    subTriggerSleepers: record.info.doorbell ? sleepers(subscribers) : [],
  };
  return { response: { case: "createPublisher", value }, fds: fds.fds };
}

/** Those who get what is published on a channel. */
export function* subscribersOf(channel: Channel): Generator<Subscriber> {
  yield* channel.subscribers.values();
  if (channel.isVirtual) yield* channel.physical.channel.subscribers.values();
}

/** Which of them say in the channel's doorbell when they sleep, for a client that does too: 1 + its id, or 0. */
export function sleepers(users: readonly User[]): number[] {
  return users.map(({ id, record }) => record.info.doorbell ? id + 1 : 0);
}

/** The ends where subscribers write which slots are retired. */
export function* retirementPipes(channel: Channel): Generator<Fd> {
  for (const { record } of channel.publishers.values()) {
    if (record.retirement !== null) yield record.retirement.write;
  }
}
