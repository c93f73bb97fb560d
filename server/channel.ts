/** A channel as users name it: plain, a multiplexer, or a virtual channel on one. */

import type { PhysicalChannel } from "./physical_channel.ts";
import type { Publisher, Subscriber, User } from "./users.ts";

/** The virtual channel id of channels that are none. */
export const NO_VCHAN = -1;

/**
 * A name and its users.
 *
 * Invariants: ids of users are unique over the physical channel; a channel without users exists only as a
 * multiplexer that has virtual channels.
 */
export class Channel {
  readonly publishers = new Map<number, Publisher>();
  readonly subscribers = new Map<number, Subscriber>();

  constructor(
    readonly name: string,
    /** Where its memory is; shared by a multiplexer and its virtual channels. */
    readonly physical: PhysicalChannel,
    /** -1 unless it is virtual. */
    readonly vchanId: number,
  ) {}

  get isVirtual(): boolean {
    return this.vchanId !== NO_VCHAN;
  }

  get isMultiplexer(): boolean {
    return !this.isVirtual && this.physical.virtualChannels !== null;
  }

  /** Whether nothing keeps it alive. */
  get isEmpty(): boolean {
    if (this.publishers.size + this.subscribers.size > 0) return false;
    return this.isVirtual || (this.physical.virtualChannels?.size ?? 0) === 0;
  }

  /** The publishers agree on it; false where there are none. */
  get isLocal(): boolean {
    return this.#anyPublisher((info) => info.isLocal);
  }

  /** The publishers agree on it; false where there are none. */
  get isFixedSize(): boolean {
    return this.#anyPublisher((info) => info.isFixedSize);
  }

  /** Whether any publisher is reliable. */
  get isReliable(): boolean {
    return this.#anyPublisher((info) => info.isReliable);
  }

  #anyPublisher(holds: (info: Publisher["record"]["info"]) => boolean): boolean {
    for (const { record } of this.publishers.values()) if (holds(record.info)) return true;
    return false;
  }

  /** Publishers, then subscribers. */
  *users(): Generator<User> {
    yield* this.publishers.values();
    yield* this.subscribers.values();
  }
}
