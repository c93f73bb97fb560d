/** What a user leaves behind in its channel, and who has to know that it is gone (specification, section 5.13). */

import { getLogger } from "@logtape/logtape";
import type { Channel } from "./channel.ts";
import type { Host } from "./host.ts";
import type { PhysicalChannel } from "./physical_channel.ts";
import type { User } from "./users.ts";

const log = getLogger(["subspace", "server"]);

/**
 * Takes a user out of its channel and the channel's memory. Publishers are told of the slots that this retired.
 *
 * @param over Whether the user certainly does nothing any more: it asked to go, or its process is dead.
 * @returns false if it is a publisher that may still be writing to subscriber queues. Its id must not be used then.
 */
export function withdraw(host: Host, user: User, over: boolean): boolean {
  const { id, channel } = user, { physical } = channel, { registry } = physical;
  channel.publishers.delete(id);
  channel.subscribers.delete(id);
  registry.forgetSleeper(id);
  try {
    if (user.kind === "publisher") {
      registry.removePublisher(id);
      if (!over) return registry.hazard(id) === 0;
      registry.clearHazard(id);
    } else {
      const retired = registry.removeSubscriber(id, user.record.info.isReliable);
      for (const slot of retired) notifyRetired(host, physical, slot);
    }
  } catch (error) {
    // Whoever maps a control block can spoil it. That must not keep anybody from leaving.
    log.error("Failed to take {kind} {id} out of channel {channel}: {reason}", {
      kind: user.kind,
      id,
      channel: channel.name,
      reason: (error as Error).message,
    });
  }
  return true;
}

function notifyRetired(host: Host, physical: PhysicalChannel, slot: number): void {
  for (const { record } of physical.channel.publishers.values()) {
    if (record.retirement === null || host.notifyRetired(record.retirement.write, slot)) continue;
    log.warn(
      "Failed to trigger retirement for slot {slot} of channel {channel}: the pipe is full or broken",
      {
        slot,
        channel: physical.name,
      },
    );
  }
}

/**
 * Wakes those whom it concerns that a user is gone: subscribers look again when a publisher goes, and reliable
 * publishers may have waited for the subscriber, or for the slot that the publisher had (which the reference forgets).
 */
export function wakeOthers(host: Host, { kind, channel }: User): void {
  const { physical } = channel;
  const concerned = channel.isMultiplexer ? physical.channels() : new Set([channel, physical.channel]);
  wakeReliablePublishers(host, concerned);
  if (kind === "subscriber") return;
  for (const { subscribers } of concerned) {
    for (const { record } of subscribers.values()) host.trigger(record.trigger);
  }
}

/** Has reliable publishers look again for a slot. */
export function wakeReliablePublishers(host: Host, channels: Iterable<Channel>): void {
  for (const { publishers } of channels) {
    for (const { record } of publishers.values()) if (record.info.isReliable) host.trigger(record.trigger);
  }
}
