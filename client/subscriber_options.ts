/** What a subscriber is asked to be, and what the server is asked for then. */

import type { ChecksumFunction } from "../shm/checksum.ts";
import type { SplitBufferMapper } from "../shm/split_memory.ts";
import type { MappedFile } from "./channel_memory.ts";
import type { Codec } from "./codec.ts";
import type { RequestInit } from "./server_link.ts";
import { checkVchanId } from "./virtual_channels.ts";

/** What a subscriber is to be. */
export interface SubscriberOptions<Value = Uint8Array> {
  /** Whether reliable publishers wait for it. Default: false. */
  reliable?: boolean;
  /** What the messages are; checked by the server, for equality. Default: unknown. */
  type?: string | Uint8Array;
  /** What messages mean, for `Message.value`. Default: a copy of their bytes. */
  codec?: Codec<Value>;
  /**
   * Whether checksums are verified: true for CRC32 and CRC32C, whichever fits, or what computes another. Messages without
   * one are read as they are. Default: false.
   */
  checksum?: boolean | ChecksumFunction;
  /** Whether messages with a wrong checksum are read, with `checksumError` set, instead of a `ChecksumError`. Default: false. */
  passChecksumErrors?: boolean;
  /** Whether messages are read that only say that a publisher is there: `Message.isActivation`. Default: false. */
  passActivation?: boolean;
  /** Whether messages missed are counted. Default: true. */
  detectDrops?: boolean;
  /** Told how many messages were missed just before the one that is being read. */
  onDrop?: (count: number) => void;
  /**
   * Sees each message before it is read. Returns how much of it is to be read if that is not all: 0 skips it. What it
   * throws, `read` throws; the message is skipped.
   */
  onReceive?: (message: Uint8Array<ArrayBuffer>) => number | void;
  /** Whether messages may be written to: all subscribers see it. Default: false, writing kills the process. */
  writable?: boolean;
  /** Whether it passes messages on to another machine. Default: false. */
  tunnel?: boolean;
  /** Messages that may be held at a time. Default: 1. */
  maxActiveMessages?: number;
  /**
   * The multiplexer of the virtual channel. Default: none. (Who subscribes to the multiplexer's own name reads all its
   * virtual channels.)
   */
  mux?: string;
  /** Number of the virtual channel, 0 to 1022. Default: the lowest that is free, or that of the channel where it exists. */
  vchanId?: number;
  /**
   * Places in its queue, 1 to 1024, out of the channel's arena. An unreliable subscriber that asks for so many keeps the
   * newest unread messages only: older ones are dropped, and counted. 0 for a queue of the channel's size, which drops
   * nothing: what it has no place for is found in the slots. Default: 0.
   */
  queueSize?: number;
  /**
   * Finds the memory of split buffers that a publisher's allocator made. Not needed for named shared memory, nor where
   * the allocator gives fds. Default: none.
   */
  splitBuffers?: SplitBufferMapper;
  /** Subscribers that the channel may have, 0 for any number. Default: 0. */
  maxSubscribers?: number;
}

/** @throws {RangeError} If an option is out of its range. */
export function checkSubscriberOptions<Value>(channel: string, options: SubscriberOptions<Value>): void {
  const { maxActiveMessages = 1 } = options;
  if (!Number.isInteger(maxActiveMessages) || maxActiveMessages < 1 || maxActiveMessages > 0x7fff_ffff) {
    throw new RangeError(
      `Cannot subscribe to ${channel}: maxActiveMessages must be a positive integer, not ${maxActiveMessages}`,
    );
  }
  checkVchanId(channel, options);
}

/** The request that makes a subscriber known, by the id that the server has it by, or -1 for a new one. */
export function createSubscriberRequest<Value>(
  channel: string,
  options: SubscriberOptions<Value>,
  identity: { subscriberId: number; requestToken: bigint; doorbell: boolean } & MappedFile,
): RequestInit {
  const { type = "", maxActiveMessages = 1, maxSubscribers = 0 } = options;
  const value = {
    channelName: channel,
    isReliable: options.reliable ?? false,
    type: typeof type === "string" ? new TextEncoder().encode(type) : type,
    maxActiveMessages,
    subscriberQueueSize: options.queueSize ?? 0,
    mux: options.mux ?? "",
    vchanId: options.vchanId ?? -1,
    processId: BigInt(Deno.pid),
    maxSubscribers,
    forTunnel: options.tunnel ?? false,
    ...identity,
  };
  return { request: { case: "createSubscriber", value } };
}

/** The request that makes the server forget a subscriber. */
export function removeSubscriberRequest(
  channelName: string,
  subscriberId: number,
  requestToken: bigint,
): RequestInit {
  return { request: { case: "removeSubscriber", value: { channelName, subscriberId, requestToken } } };
}
