/** Publishers that are gone, but may still be writing to subscriber queues: their ids are nobody else's as yet. */

import type { Host } from "./host.ts";
import type { PhysicalChannel } from "./physical_channel.ts";
import { hasEnded, type ProcessRecord } from "./processes.ts";

/** One of them, for another server. */
export type UnsettledPublisher = ProcessRecord & { readonly channelName: string; readonly id: number };

/** Keeps their ids, which are taken, until they have left the queues or their process has ended. */
export class UnsettledPublishers {
  readonly #publishers = new Set<{ physical: PhysicalChannel; id: number; process: ProcessRecord }>();

  constructor(private readonly host: Host) {}

  add(physical: PhysicalChannel, id: number, { processId, processStart, pidNamespace }: ProcessRecord): void {
    this.#publishers.add({ physical, id, process: { processId, processStart, pidNamespace } });
  }

  *[Symbol.iterator](): Iterator<UnsettledPublisher> {
    for (const { physical, id, process } of this.#publishers) {
      yield { channelName: physical.name, id, ...process };
    }
  }

  /**
   * Frees the ids of those that have left.
   *
   * @param exists Whether a channel is still there.
   */
  settle(exists: (physical: PhysicalChannel) => boolean): void {
    for (const publisher of this.#publishers) {
      const { physical, id, process } = publisher, there = exists(physical);
      if (there && physical.registry.hazard(id) > 0 && !hasEnded(this.host, process)) continue;
      this.#publishers.delete(publisher);
      if (!there) continue;
      physical.registry.clearHazard(id);
      physical.userIds.release(id);
    }
  }

  clear(): void {
    this.#publishers.clear();
  }
}
