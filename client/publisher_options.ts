/** What a publisher is asked to be, and what the server is asked for then. */

import { align64 } from "../shm/layout.ts";
import type { ChecksumFunction } from "../shm/checksum.ts";
import type { SplitBufferAllocator } from "../shm/split_memory.ts";
import type { MappedFile } from "./channel_memory.ts";
import type { Codec } from "./codec.ts";
import type { RequestInit } from "./server_link.ts";
import { checkVchanId } from "./virtual_channels.ts";

/** What a publisher is to be. All publishers of a channel must agree about most of it. */
export interface PublisherOptions<Value = Uint8Array> {
  /** Bytes that a slot has for a message, to begin with. */
  slotBytes: number;
  /** Slots of the channel; one more than all that publishers and subscribers hold at a time, at the least. */
  numSlots: number;
  /** Whether messages wait for subscribers, instead of being overwritten. Default: false. */
  reliable?: boolean;
  /** Whether the channel stays on this machine. Default: false. */
  local?: boolean;
  /** Whether slots never grow. Default: false. */
  fixedSize?: boolean;
  /** What the messages are, such as the name of a protobuf; checked by the server, for equality. Default: unknown. */
  type?: string | Uint8Array;
  /**
   * The multiplexer that carries the channel, as one of its virtual channels. These share the multiplexer's slots and
   * their size; each counts its messages for itself. Default: none, the channel has memory of its own.
   */
  mux?: string;
  /** Number of the virtual channel, 0 to 1022. Default: the lowest that is free, or that of the channel where it exists. */
  vchanId?: number;
  /**
   * Bytes of the channel for subscriber queues: 640 for each subscriber that leaves its queue's size to the channel,
   * 64000 for a hundred. Default: 0, subscribers have no queues.
   */
  subscriberQueueArenaBytes?: number;
  /** Publishers that the channel may have, 0 for any number. Default: 0. */
  maxPublishers?: number;
  /** Turns values into messages, for `publishValue` and `sendValue`. Default: values are bytes. */
  codec?: Codec<Value>;
  /** Whether messages carry a checksum: true for CRC32, or what computes another. Must not throw. Default: false. */
  checksum?: boolean | ChecksumFunction;
  /** Messages that may be leased at a time (see `lease`): the channel needs so many slots more. Default: 1. */
  maxOutstandingLeases?: number;
  /** Whether `retirements` tells which messages every subscriber has read. Default: false. */
  notifyRetirement?: boolean;
  /** Whether other publishers are told of unread messages that this one overwrites, too. Default: true. */
  notifyForcedReuse?: boolean;
  /** Whether slots that everybody has read are used again before those never used, to stay in cache. Default: false. */
  preferRetiredSlots?: boolean;
  /** Whether subscribers are told that it is there, as a reliable one always does: `Message.isActivation`. Default: false. */
  activate?: boolean;
  /** Whether it passes on messages of another machine, and marks them so. Default: false. */
  tunnel?: boolean;
  /** Sees each message before it is published, and may change it. Returns its length if that changes; what it throws keeps it back. */
  onSend?: (message: Uint8Array<ArrayBuffer>) => number | void;
  /** Told before slots grow, with their sizes in bytes. What it throws keeps them as they are. */
  onResize?: (fromBytes: number, toBytes: number) => void;
  /** Whether each publication wakes the subscribers that sleep. false: they are woken by `flush`. Default: true. */
  autoFlush?: boolean;
  /** Bytes for a checksum in front of each message. Default: 4. */
  checksumBytes?: number;
  /** Bytes for metadata in front of each message. Default: 0. */
  metadataBytes?: number;
  /**
   * Whether each payload is in memory of its own: true for named shared memory, or what makes the memory. For hardware
   * that writes to certain memory, or for payloads that are handed on one by one. Publishers of a channel must agree
   * whether it is split. Default: false, a buffer is one piece.
   */
  splitBuffers?: boolean | SplitBufferAllocator;
  /** Whether a bridge to another machine splits the channel's buffers there. Publishers must agree. Default: false. */
  splitBuffersOverBridge?: boolean;
}

/** What the server and the shared memory have to do with: all but what values are to the user. */
export type PublisherTraits = Omit<PublisherOptions, "codec">;

/** @throws {RangeError} If an option is out of its range. */
export function checkPublisherOptions(channel: string, options: PublisherTraits): void {
  checkCount(channel, "slotBytes", options.slotBytes);
  checkCount(channel, "numSlots", options.numSlots);
  checkVchanId(channel, options);
  checkCount(channel, "maxOutstandingLeases", options.maxOutstandingLeases ?? 1);
  checkBytes(channel, "checksumBytes", options.checksumBytes ?? 4, 4);
  checkBytes(channel, "metadataBytes", options.metadataBytes ?? 0, 0);
}

/** The request that makes a publisher known, by the id that the server has it by, or -1 for a new one. */
export function createPublisherRequest(
  channel: string,
  options: PublisherTraits,
  identity: { publisherId: number; requestToken: bigint; doorbell: boolean } & MappedFile,
): RequestInit {
  const type = options.type ?? "";
  const value = {
    channelName: channel,
    numSlots: options.numSlots,
    slotSize: align64(options.slotBytes),
    isLocal: options.local ?? false,
    isReliable: options.reliable ?? false,
    isFixedSize: options.fixedSize ?? false,
    type: typeof type === "string" ? new TextEncoder().encode(type) : type,
    mux: options.mux ?? "",
    vchanId: options.vchanId ?? -1,
    subscriberQueueArenaSize: BigInt(options.subscriberQueueArenaBytes ?? 0),
    checksumSize: options.checksumBytes ?? 4,
    metadataSize: options.metadataBytes ?? 0,
    maxPublishers: options.maxPublishers ?? 0,
    processId: BigInt(Deno.pid),
    maxOutstandingSlotLeases: options.maxOutstandingLeases ?? 1,
    notifyRetirement: options.notifyRetirement ?? false,
    forTunnel: options.tunnel ?? false,
    useSplitBuffers: (options.splitBuffers ?? false) !== false,
    splitBuffersOverBridge: options.splitBuffersOverBridge ?? false,
    ...identity,
  };
  return { request: { case: "createPublisher", value } };
}

/** The request that makes the server forget a publisher. */
export function removePublisherRequest(
  channelName: string,
  publisherId: number,
  requestToken: bigint,
): RequestInit {
  return { request: { case: "removePublisher", value: { channelName, publisherId, requestToken } } };
}

function checkCount(channel: string, name: string, value: number): void {
  if (Number.isInteger(value) && value > 0 && value <= 0x7fff_ffff) return;
  throw new RangeError(
    `Cannot create a publisher on ${channel}: ${name} must be a positive integer, not ${value}`,
  );
}

function checkBytes(channel: string, name: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least && value <= 0xffff) return;
  throw new RangeError(
    `Cannot create a publisher on ${channel}: ${name} must be ${least} to 65535, not ${value}`,
  );
}
