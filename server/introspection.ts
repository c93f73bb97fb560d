/** GetChannelInfo and GetChannelStats; and what the server publishes of itself is made of the same (sections 2.7, 6). */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  ChannelInfoProtoSchema,
  ChannelStatsProtoSchema,
  GetChannelInfoRequest,
  GetChannelStatsRequest,
} from "../proto/subspace_pb.ts";
import type { Answer } from "./answer.ts";
import type { Channel } from "./channel.ts";
import type { ChannelTable } from "./channel_table.ts";
import { RequestError } from "./request_error.ts";
import type { User } from "./users.ts";

/** A channel and its connected users. The counts of a virtual channel are those of its whole multiplexer. */
export function channelInfo(channel: Channel): MessageInitShape<typeof ChannelInfoProtoSchema> {
  const { physical } = channel, { census } = physical;
  return {
    name: channel.name,
    slotSize: physical.slotBytes,
    numSlots: physical.layout.numSlots,
    type: physical.type,
    numPubs: census.publishers,
    numSubs: census.subscribers,
    numBridgePubs: census.bridgePublishers,
    numBridgeSubs: census.bridgeSubscribers,
    isReliable: channel.isReliable,
    numTunnelPubs: census.tunnelPublishers,
    numTunnelSubs: census.tunnelSubscribers,
    isVirtual: channel.isVirtual,
    vchanId: channel.isVirtual ? channel.vchanId : 0,
    mux: channel.isVirtual ? physical.name : "",
    channelId: physical.id,
    participants: [...channel.users()].filter(({ client }) => client !== null).map(participant),
    subscriberQueueSize: physical.defaultQueueCapacity,
    subscriberQueueArenaSize: BigInt(physical.queueArenaBytes),
  };
}

function participant({ id, kind, client, claimedPid, record: { info } }: User) {
  return {
    id,
    pid: claimedPid,
    programName: client!.name,
    isPublisher: kind === "publisher",
    isSubscriber: kind === "subscriber",
    isReliable: info.isReliable,
    isBridge: info.isBridge,
    forTunnel: info.forTunnel,
  };
}

/** What has gone over a channel; over a multiplexer as a whole where it is virtual. */
export function channelStats(channel: Channel): MessageInitShape<typeof ChannelStatsProtoSchema> {
  const { physical } = channel, { census } = physical, { totals } = physical.blocks;
  return {
    channelName: channel.name,
    totalBytes: int64(totals.bytes),
    totalMessages: int64(totals.messages),
    slotSize: physical.slotBytes,
    numSlots: physical.layout.numSlots,
    numPubs: census.publishers,
    numSubs: census.subscribers,
    maxMessageSize: totals.maxMessageSize,
    totalDrops: totals.drops,
    numBridgePubs: census.bridgePublishers,
    numBridgeSubs: census.bridgeSubscribers,
  };
}

/** Counters in memory may say anything. */
function int64(value: number): bigint {
  return BigInt.asIntN(64, BigInt(value));
}

/** The channel of a name, or all where the name is empty. */
function named(table: ChannelTable, name: string): Channel[] {
  if (name === "") return [...table.channels()];
  const channel = table.find(name);
  if (channel === undefined) throw new RequestError(`No such channel ${name}`);
  return [channel];
}

export function getChannelInfo(table: ChannelTable, { channelName }: GetChannelInfoRequest): Answer {
  const channels = named(table, channelName).map(channelInfo);
  return { response: { case: "getChannelInfo", value: { channels } }, fds: [] };
}

export function getChannelStats(table: ChannelTable, { channelName }: GetChannelStatsRequest): Answer {
  const channels = named(table, channelName).map(channelStats);
  return { response: { case: "getChannelStats", value: { channels } }, fds: [] };
}
