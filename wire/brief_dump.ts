/**
 * A shadow's state for those who only look: as a state dump, without the fds of users, and a message a channel, or one
 * for many where they are asked for. Spoken on the second socket of our shadows, and only when asked for. Of a system
 * with 1000 channels and 4000 users it takes a sixth of the fds.
 */

import { closeAll, type Fd } from "../ffi/fd.ts";
import { create, type Init } from "../proto/message.ts";
import { ClientBufferHandleMetadataProtoSchema, ShadowCreateChannelSchema } from "../proto/subspace.ts";
import type {
  ShadowAddPublisher,
  ShadowAddSubscriber,
  ShadowBriefChannel,
  ShadowCreateChannel,
} from "../proto/subspace_pb.ts";
import { type Connection, type Incoming, ProtocolError } from "./connection.ts";
import { CHANNEL_FDS, type ShadowEventInit } from "./shadow_link.ts";
import {
  type ChannelRecord,
  clientBufferEvent,
  type ClientBufferRecord,
  putClientBuffer,
  receiveSoFar,
  sendDumpAs,
  type StateDump,
} from "./state_dump.ts";
import type { ShadowEvent } from "../proto/subspace_pb.ts";

/** A channel as it is shown: what a `ChannelRecord` is too. */
export interface SeenChannel {
  readonly info: ShadowCreateChannel;
  readonly ccb: Fd;
  readonly bcb: Fd;
  readonly publishers: ReadonlyMap<number, { readonly info: ShadowAddPublisher }>;
  readonly subscribers: ReadonlyMap<number, { readonly info: ShadowAddSubscriber }>;
  readonly clientBuffers: ReadonlyMap<string, ClientBufferRecord>;
}

/** A state as it is shown: what a `StateDump` is too. */
export interface SeenState {
  /** 0 when the shadow has nothing. */
  readonly sessionId: bigint;
  readonly scb: Fd | null;
  readonly channels: ReadonlyMap<string, SeenChannel>;
}

/** As much of a state as came. */
export interface SeenSoFar {
  readonly dump: SeenState;
  /** Channels that it was to have. */
  readonly numChannels: number;
  /** Why it ended early; null where it is whole. */
  readonly failure: Error | null;
}

/**
 * Sends a state in brief: header, channels, end.
 *
 * @param dump Must not change until the promise resolves.
 * @param stallMs A reader that takes nothing for so long is dropped: see the connection's `failure`.
 */
export function sendBriefDump(connection: Connection, dump: StateDump, stallMs: number): Promise<void> {
  return sendDumpAs(connection, dump, inBrief(dump.channels.values()), stallMs);
}

/** The events of channels in brief, one after the other. */
export function* inBrief(channels: Iterable<ChannelRecord>): Generator<[ShadowEventInit, Fd[]]> {
  for (const channel of channels) {
    yield [{ event: { case: "briefChannel", value: briefChannel(channel) } }, [channel.ccb, channel.bcb]];
    for (const buffer of channel.clientBuffers.values()) yield clientBufferEvent(buffer);
  }
}

/** A channel with its users, as a message has them. */
export type ShadowBriefChannelInit = Init<ShadowBriefChannel>;

/** A channel with its users. */
export function briefChannel({ info, publishers, subscribers }: ChannelRecord): ShadowBriefChannelInit {
  return {
    channel: info,
    publishers: Array.from(publishers.values(), ({ info }) => info),
    subscribers: Array.from(subscribers.values(), ({ info }) => info),
  };
}

interface GrowingChannel extends SeenChannel {
  readonly clientBuffers: Map<string, ClientBufferRecord>;
}

/**
 * Receives a state in brief, or what arrives of it.
 *
 * @throws {ProtocolError} If what comes is none.
 */
export async function receiveBriefDumpSoFar(connection: Connection): Promise<SeenSoFar> {
  const channels = new Map<string, GrowingChannel>();
  return await receiveSoFar(connection, channels, (incoming) => add(channels, incoming));
}

function add(
  channels: Map<string, GrowingChannel>,
  { message: { event }, fds }: Incoming<ShadowEvent>,
): void {
  switch (event.case) {
    case "briefChannel":
      return addAll(channels, [seenChannel(event.value, fds)]);
    case "bundle": {
      if (!event.value.brief) break;
      const fdsOf = (i: number) => fds.slice(CHANNEL_FDS * i, CHANNEL_FDS * (i + 1));
      return addAll(channels, event.value.channels.map((channel, i) => seenChannel(channel, fdsOf(i))));
    }
    case "registerClientBuffer": {
      const metadata = event.value.metadata ?? create(ClientBufferHandleMetadataProtoSchema);
      const channel = channels.get(metadata.channelName);
      if (channel === undefined) break;
      return putClientBuffer(channel, { metadata, fd: fds[0] ?? null });
    }
  }
  throw new ProtocolError(`Cannot accept ${event.case ?? "an unknown event"} in a state dump`);
}

/** Adds all of them, or where one is there already none: whoever calls closes their fds then. */
function addAll(channels: Map<string, GrowingChannel>, seen: readonly GrowingChannel[]): void {
  const names = new Set<string>();
  for (const { info: { channelName } } of seen) {
    if (channels.has(channelName) || names.has(channelName)) {
      throw new ProtocolError(`Cannot accept channel ${channelName} twice in a state dump`);
    }
    names.add(channelName);
  }
  for (const channel of seen) channels.set(channel.info.channelName, channel);
}

function seenChannel(
  { channel, publishers, subscribers }: ShadowBriefChannel,
  [ccb, bcb]: readonly Fd[],
): GrowingChannel {
  return {
    info: channel ?? create(ShadowCreateChannelSchema),
    ccb,
    bcb,
    publishers: new Map(publishers.map((info) => [info.publisherId, { info }])),
    subscribers: new Map(subscribers.map((info) => [info.subscriberId, { info }])),
    clientBuffers: new Map(),
  };
}

/** Closes all fds of a state that was received in brief. */
export function closeBriefDump({ scb, channels }: SeenState): void {
  scb?.close();
  for (const { ccb, bcb, clientBuffers } of channels.values()) {
    closeAll([ccb, bcb]);
    for (const { fd } of clientBuffers.values()) fd?.close();
  }
}
