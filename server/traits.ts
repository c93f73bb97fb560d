/** What channels and users are made by. */

import type { ShadowAddPublisher, ShadowAddSubscriber } from "../proto/subspace_pb.ts";
import type { BufferLayout } from "./physical_channel.ts";

/** What a new physical channel looks like. */
export interface ChannelShape {
  readonly layout: BufferLayout;
  /** Room for subscriber queues, in bytes. */
  readonly queueArenaBytes: number;
  readonly type: Uint8Array<ArrayBufferLike>;
}

/** What the table adds to what a client says of a user. */
type Own =
  | "$typeName"
  | "$unknown"
  | "channelName"
  | "processStart"
  | "pidNamespace"
  | "requestToken"
  | "clientToken";

/** What a client says about a publisher that it wants. */
export type PublisherTraits = Omit<ShadowAddPublisher, Own | "publisherId"> & Repeatable;

/** What a client says about a subscriber that it wants. */
export type SubscriberTraits = Omit<ShadowAddSubscriber, Own | "subscriberId"> & Repeatable;

interface Repeatable {
  /** Of the request: see `findGranted`. Default: 0, for none. */
  readonly requestToken?: bigint;
}

/** What a client says about an orphan of its own. */
export type ReclaimTraits = Pick<PublisherTraits, "processId" | "doorbell">;
