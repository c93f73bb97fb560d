/** Publishers and subscribers as they begin: their descriptors, and what a shadow is told of them. */

import { create } from "../proto/message.ts";
import { ShadowAddPublisherSchema, ShadowAddSubscriberSchema } from "../proto/subspace.ts";
import type { Channel } from "./channel.ts";
import type { Host } from "./host.ts";
import { processOf } from "./processes.ts";
import type { PublisherTraits, SubscriberTraits } from "./traits.ts";
import type { Client, Publisher, Subscriber } from "./users.ts";

/**
 * A publisher that is in no channel yet.
 *
 * @throws {SystemError} If there are no descriptors for it.
 */
export function newPublisher(
  host: Host,
  id: number,
  channel: Channel,
  client: Client,
  traits: PublisherTraits,
): Publisher {
  using cleanup = new DisposableStack();
  const trigger = cleanup.use(host.createEventFd());
  const pipe = traits.notifyRetirement ? host.createPacketPipe() : null;
  const info = create(ShadowAddPublisherSchema, {
    ...traits,
    channelName: channel.name,
    publisherId: id,
    clientToken: client.token,
    ...processOf(host, client, traits.processId),
  });
  cleanup.move();
  const retirement = pipe === null ? null : { read: pipe[0], write: pipe[1] };
  const record = { info, poll: trigger, trigger, retirement };
  return { kind: "publisher", id, channel, client, claimedPid: traits.processId, record };
}

/**
 * A subscriber that is in no channel yet, but has its queue.
 *
 * @throws {SystemError} If there is no descriptor for it.
 */
export function newSubscriber(
  host: Host,
  id: number,
  channel: Channel,
  client: Client,
  traits: SubscriberTraits,
): Subscriber {
  using cleanup = new DisposableStack();
  const trigger = cleanup.use(host.createEventFd());
  const queueCapacity = channel.physical.registry.allocateQueue(id, traits.subscriberQueueSize);
  const info = create(ShadowAddSubscriberSchema, {
    ...traits,
    channelName: channel.name,
    subscriberId: id,
    clientToken: client.token,
    ...processOf(host, client, traits.processId),
  });
  cleanup.move();
  const record = { info, trigger, poll: trigger };
  return { kind: "subscriber", id, channel, client, claimedPid: traits.processId, record, queueCapacity };
}
