/** Messages that nobody holds and that count as held, since a subscriber died at the wrong moment (section 9.2, 27). */

import type { Suspects } from "../shm/registry.ts";
import type { PhysicalChannel } from "./physical_channel.ts";

/**
 * Finds and frees them.
 *
 * A slot is freed if it was suspected in one round and has not changed by the next; so rounds have to be seconds apart,
 * and only channels that a subscriber has left are looked at, until there is nothing to suspect.
 */
export class LostReferences {
  readonly #suspects = new Map<PhysicalChannel, Suspects | null>();

  /** A subscriber has left a channel, perhaps by dying. */
  noteDeparture(physical: PhysicalChannel): void {
    if (!this.#suspects.has(physical)) this.#suspects.set(physical, null);
  }

  /** Channels that are looked at. */
  get channels(): Iterable<PhysicalChannel> {
    return this.#suspects.keys();
  }

  /** A channel is gone. */
  forget(physical: PhysicalChannel): void {
    this.#suspects.delete(physical);
  }

  /** One round. Yields each channel in which something was freed: its reliable publishers may have waited for that. */
  *reclaim(): Generator<PhysicalChannel> {
    for (const [physical, suspects] of this.#suspects) {
      const { registry } = physical;
      if (suspects !== null && registry.freeReferences(suspects, reliableSubscribers(physical)) > 0) {
        yield physical;
      }
      const left = registry.suspectReferences();
      if (left === null) this.#suspects.delete(physical);
      else this.#suspects.set(physical, left);
    }
  }
}

function* reliableSubscribers(physical: PhysicalChannel): Generator<number> {
  for (const { subscribers } of physical.channels()) {
    for (const { id, record } of subscribers.values()) if (record.info.isReliable) yield id;
  }
}
