/** Users that their clients want no more. An id that is nobody's is fine, as in the reference. */

import type { RemovePublisherRequest, RemoveSubscriberRequest } from "../proto/subspace_pb.ts";
import type { Answer } from "./answer.ts";
import type { Channel } from "./channel.ts";
import type { ChannelTable } from "./channel_table.ts";
import { RequestError, requestError } from "./request_error.ts";
import { isOrphanOf } from "./processes.ts";
import { type Client, mayBeMeant, type User } from "./users.ts";

/** Removes a publisher of this client, or an orphan. */
export function removePublisher(
  table: ChannelTable,
  client: Client,
  { channelName, publisherId, requestToken }: RemovePublisherRequest,
): Answer {
  remove(table, client, find(table, channelName).publishers.get(publisherId), requestToken);
  return { response: { case: "removePublisher", value: {} }, fds: [] };
}

/** Removes a subscriber of this client, or an orphan. */
export function removeSubscriber(
  table: ChannelTable,
  client: Client,
  { channelName, subscriberId, requestToken }: RemoveSubscriberRequest,
): Answer {
  remove(table, client, find(table, channelName).subscribers.get(subscriberId), requestToken);
  return { response: { case: "removeSubscriber", value: {} }, fds: [] };
}

function find(table: ChannelTable, name: string): Channel {
  const channel = table.find(name);
  if (channel === undefined) throw new RequestError(`No such channel ${name}`);
  return channel;
}

function remove(table: ChannelTable, client: Client, user: User | undefined, requestToken: bigint): void {
  if (user === undefined || !mayBeMeant(user, requestToken)) return;
  checkOwner(table, user, client);
  table.remove(user, true);
}

/** Nobody but its own client removes a user. */
function checkOwner({ host }: ChannelTable, user: User, asking: Client): void {
  const { client, kind, id, channel } = user;
  if (client === asking || isOrphanOf(host, user, asking, 0n)) return;
  throw requestError(
    "PERMISSION_DENIED",
    `${kind} ${id} on channel ${channel.name} belongs to another client`,
  );
}
