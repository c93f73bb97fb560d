/**
 * A shadow's state for a server that recovers from it: as a state dump, with many channels and all their fds in one
 * message; and the same in brief. Spoken on the second socket of our shadows, and only when asked for. Of a system with
 * 1000 channels and 4000 users it takes a hundredth of the messages.
 */

import type { Fd } from "../ffi/fd.ts";
import { FDS_PER_MESSAGE_MAX } from "../ffi/message.ts";
import type { ShadowBundle, ShadowEvent } from "../proto/subspace_pb.ts";
import { create } from "../proto/message.ts";
import { ShadowCreateChannelSchema } from "../proto/subspace.ts";
import { briefChannel, inBrief, type ShadowBriefChannelInit } from "./brief_dump.ts";
import type { Connection } from "./connection.ts";
import { CHANNEL_FDS, publisherFdCount, type ShadowEventInit, SUBSCRIBER_FDS } from "./shadow_link.ts";
import {
  addToDump,
  channelEvents,
  channelFds,
  type ChannelRecord,
  closeDump,
  receiveSoFar,
  sendDumpAs,
  type StateDump,
} from "./state_dump.ts";

/** About as many bytes as a bundle may have; its fds fit into one frame. */
const BUNDLE_BYTES_MAX = 32 * 1024;
/** What a user or a channel takes at the most beside its names and its type. */
const RECORD_BYTES = 128;

/**
 * Sends a dump in bundles: header, bundles, end. Waits for a slow reader now and then.
 *
 * @param dump Must not change until the promise resolves.
 * @param stallMs A reader that takes nothing for so long is dropped: see the connection's `failure`.
 */
export function sendBundledDump(connection: Connection, dump: StateDump, stallMs: number): Promise<void> {
  return sendDumpAs(connection, dump, inBundles(dump.channels.values(), false), stallMs);
}

/** As `sendBundledDump`, for those who only look: see `sendBriefDump`. */
export function sendBriefBundles(connection: Connection, dump: StateDump, stallMs: number): Promise<void> {
  return sendDumpAs(connection, dump, inBundles(dump.channels.values(), true), stallMs);
}

/** The events of channels; small channels in bundles. */
function* inBundles(
  channels: Iterable<ChannelRecord>,
  brief: boolean,
): Generator<[ShadowEventInit, Fd[]]> {
  const fdsOf = brief ? ({ ccb, bcb }: ChannelRecord) => [ccb, bcb] : channelFds;
  let bundle: ShadowBriefChannelInit[] = [], fds: Fd[] = [], bytes = 0;
  for (const channel of channels) {
    const own = fdsOf(channel), ownBytes = bytesOf(channel);
    if (bytes + ownBytes > BUNDLE_BYTES_MAX || fds.length + own.length > FDS_PER_MESSAGE_MAX) {
      if (bundle.length > 0) yield [bundleEvent(bundle, brief), fds];
      [bundle, fds, bytes] = [[], [], 0];
    }
    if (channel.clientBuffers.size > 0 || ownBytes > BUNDLE_BYTES_MAX || own.length > FDS_PER_MESSAGE_MAX) {
      yield* brief ? inBrief([channel]) : channelEvents(channel);
    } else {
      bundle.push(briefChannel(channel));
      fds.push(...own);
      bytes += ownBytes;
    }
  }
  if (bundle.length > 0) yield [bundleEvent(bundle, brief), fds];
}

/** No less than it takes in a bundle: a character takes three bytes at the most. */
function bytesOf({ info, publishers, subscribers }: ChannelRecord): number {
  const records = 1 + publishers.size + subscribers.size;
  return info.type.length + 3 * info.mux.length + records * (RECORD_BYTES + 3 * info.channelName.length);
}

function bundleEvent(channels: ShadowBriefChannelInit[], brief: boolean): ShadowEventInit {
  return { event: { case: "bundle", value: { channels, brief } } };
}

/**
 * Receives the dump that a server asked for in bundles. A shadow that does not know them sends none.
 *
 * @throws {ProtocolError} If what comes is no dump, or it ends early. All fds are closed then.
 */
export async function receiveBundledDump(connection: Connection): Promise<StateDump> {
  const channels: StateDump["channels"] = new Map();
  const { dump, failure } = await receiveSoFar(connection, channels, ({ message: { event }, fds }) => {
    if (event.case !== "bundle" || event.value.brief) return addToDump(channels, event, fds);
    for (const [part, partFds] of eventsOf(event.value, fds)) addToDump(channels, part, partFds);
  });
  if (failure === null) return dump;
  closeDump(dump);
  throw failure;
}

/** What a bundle stands for. It has just as many fds as it needs. */
function* eventsOf({ channels }: ShadowBundle, fds: readonly Fd[]): Generator<[ShadowEvent["event"], Fd[]]> {
  let at = 0;
  const take = (count: number) => fds.slice(at, at += count);
  for (const { channel = create(ShadowCreateChannelSchema), publishers, subscribers } of channels) {
    yield [{ case: "createChannel", value: channel }, take(CHANNEL_FDS)];
    for (const value of publishers) yield [{ case: "addPublisher", value }, take(publisherFdCount(value))];
    for (const value of subscribers) yield [{ case: "addSubscriber", value }, take(SUBSCRIBER_FDS)];
  }
}
