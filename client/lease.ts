/** Slots that a publisher has at its disposal, apart from the one that its next message goes to. */

import type { LeasedSlot } from "../shm/leases.ts";
import type { PublishingEnd } from "../shm/publishing.ts";

/**
 * A slot to write a message to, for as long as it takes: for hardware that fills buffers, or several messages at a
 * time. It is published or released exactly once; disposing of it releases what was not published.
 *
 * A publisher uses the same object again for a later lease of the slot, so keep none after that.
 */
export class Lease implements Disposable {
  readonly #end: PublishingEnd;
  readonly #slot: LeasedSlot;
  readonly #published: () => void;

  /** For `Publisher`. */
  constructor(end: PublishingEnd, slot: LeasedSlot, published: () => void) {
    this.#end = end;
    this.#slot = slot;
    this.#published = published;
  }

  /** The slot's number, by which `Publisher.retirements` names it later and `Publisher.reclaim` gets it back. */
  get slotId(): number {
    return this.#slot.slotId;
  }

  /** Where the message is to be written: shared memory. Empty once the publisher is closed. */
  get buffer(): Uint8Array<ArrayBuffer> {
    return this.#end.leasedBuffer(this.#slot);
  }

  /** What the allocator that made its memory calls it: see `PublisherOptions.splitBuffers`. null where none did. */
  get memoryHandle(): bigint | null {
    return this.#end.leasedHandle(this.#slot);
  }

  /** Where the message's metadata is to be written. */
  get metadata(): Uint8Array<ArrayBuffer> {
    return this.#end.leasedMetadata(this.#slot);
  }

  /**
   * Publishes the first so many bytes of the buffer.
   *
   * @returns The message's ordinal.
   * @throws {LeaseError} If it was published or released, or lost with the server's memory.
   * @throws {RangeError} If the slot is smaller.
   */
  publish(bytes: number): number {
    const ordinal = this.#end.publishLease(this.#slot, bytes);
    this.#published();
    return ordinal;
  }

  /** Gives the slot back. Does nothing if it was published or released before. */
  release(): void {
    this.#end.endLease(this.#slot);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
