/** What a shadow is told of channels, options and users (specification, section 3.1). */

import type { Fd } from "../ffi/fd.ts";
import { create } from "../proto/message.ts";
import { ClientBufferHandleMetadataProtoSchema, ShadowCreateChannelSchema } from "../proto/subspace.ts";
import type { ShadowCreateChannel } from "../proto/subspace_pb.ts";
import type { ShadowEventInit } from "../wire/shadow_link.ts";
import {
  type ChannelRecord,
  clientBufferEvent,
  clientBufferKey,
  publisherFds,
  subscriberFds,
} from "../wire/state_dump.ts";
import type { Channel } from "./channel.ts";
import type { Change } from "./journal.ts";
import type { PhysicalChannel } from "./physical_channel.ts";
import type { User } from "./users.ts";

/** The settings that all users of a physical channel share, as members of an event. */
function options(physical: PhysicalChannel) {
  const { splitBuffers } = physical;
  const maxPublishers = physical.maxPublishers ?? 0, maxSubscribers = physical.maxSubscribers ?? 0;
  return {
    hasSplitBufferOptions: splitBuffers !== null,
    useSplitBuffers: splitBuffers?.useSplitBuffers ?? false,
    splitBuffersOverBridge: splitBuffers?.splitBuffersOverBridge ?? false,
    hasMaxPublishers: maxPublishers > 0,
    maxPublishers,
    hasMaxSubscribers: maxSubscribers > 0,
    maxSubscribers,
  };
}

/** A channel without its users. What follows from its publishers (reliable, local, fixed size) is theirs to say. */
export function channelInfo(channel: Channel): ShadowCreateChannel {
  const { physical } = channel;
  const { numSlots, checksumBytes, metadataBytes } = physical.layout;
  return create(ShadowCreateChannelSchema, {
    channelName: channel.name,
    channelId: physical.id,
    slotSize: physical.slotBytes,
    numSlots,
    type: physical.type,
    checksumSize: checksumBytes,
    metadataSize: metadataBytes,
    mux: channel.isVirtual ? physical.name : "",
    vchanId: channel.isVirtual ? channel.vchanId : 0,
    subscriberQueueArenaSize: BigInt(physical.queueArenaBytes),
    ...(channel.isVirtual ? {} : options(physical)),
  });
}

/** A channel as a shadow keeps it. The fds are borrowed. Registered buffers belong to the physical channel. */
export function channelRecord(channel: Channel): ChannelRecord {
  const { physical } = channel;
  return {
    info: channelInfo(channel),
    ccb: physical.blocks.ccbFd,
    bcb: physical.blocks.bcbFd,
    publishers: new Map(channel.publishers.values().map(({ id, record }) => [id, record])),
    subscribers: new Map(channel.subscribers.values().map(({ id, record }) => [id, record])),
    clientBuffers: channel.isVirtual ? new Map() : physical.clientBuffers,
  };
}

/** The options of a physical channel, as they are now. */
export function updateOptions(physical: PhysicalChannel): ShadowEventInit {
  const value = { channelName: physical.name, ...options(physical) };
  return { event: { case: "updateChannelOptions", value } };
}

/** A channel has come, or changed. The fds are borrowed. */
export function createChannel(channel: Channel): [ShadowEventInit, Fd[]] {
  const { ccbFd, bcbFd } = channel.physical.blocks;
  return [{ event: { case: "createChannel", value: channelInfo(channel) } }, [ccbFd, bcbFd]];
}

/** A channel is gone. */
export function removeChannel({ name: channelName, physical: { id: channelId } }: Channel): ShadowEventInit {
  return { event: { case: "removeChannel", value: { channelName, channelId } } };
}

/** A user has come. The fds are borrowed. */
export function addUser(user: User): [ShadowEventInit, Fd[]] {
  return user.kind === "publisher"
    ? [{ event: { case: "addPublisher", value: user.record.info } }, publisherFds(user.record)]
    : [{ event: { case: "addSubscriber", value: user.record.info } }, subscriberFds(user.record)];
}

/** A user is gone. */
export function removeUser({ kind, id, channel }: User): ShadowEventInit {
  const channelName = channel.name;
  return kind === "publisher"
    ? { event: { case: "removePublisher", value: { channelName, publisherId: id } } }
    : { event: { case: "removeSubscriber", value: { channelName, subscriberId: id } } };
}

/** What changed by an event that the table reports. */
export function changeOf({ event }: ShadowEventInit): Change {
  switch (event?.case) {
    case "createChannel":
      return { what: "channel", channelName: event.value.channelName ?? "" };
    case "updateChannelOptions":
      return { what: "options", channelName: event.value.channelName ?? "" };
    case "addPublisher":
      return {
        what: "publisher",
        channelName: event.value.channelName ?? "",
        id: event.value.publisherId ?? 0,
      };
    case "addSubscriber":
      return {
        what: "subscriber",
        channelName: event.value.channelName ?? "",
        id: event.value.subscriberId ?? 0,
      };
    case "registerClientBuffer": {
      const metadata = create(ClientBufferHandleMetadataProtoSchema, event.value.metadata);
      return { what: "buffer", channelName: metadata.channelName, key: clientBufferKey(metadata) };
    }
    default:
      return { what: "removal", event: { event } as ShadowEventInit };
  }
}

/** What to tell a shadow of a change now. The fds are borrowed. null: what changed is gone, which another change says. */
export function eventOf(
  change: Change,
  find: (name: string) => Channel | undefined,
): [ShadowEventInit, Fd[]] | null {
  if (change.what === "removal") return [change.event, []];
  const channel = find(change.channelName);
  if (channel === undefined) return null;
  switch (change.what) {
    case "channel":
      return createChannel(channel);
    case "options":
      return [updateOptions(channel.physical), []];
    case "publisher":
    case "subscriber": {
      const users = change.what === "publisher" ? channel.publishers : channel.subscribers;
      const user = users.get(change.id);
      return user === undefined ? null : addUser(user);
    }
    case "buffer": {
      const buffer = channel.physical.clientBuffers.get(change.key);
      return buffer === undefined ? null : clientBufferEvent(buffer);
    }
  }
}
