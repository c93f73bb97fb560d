/** A message as its subscriber holds it. */

import { Prefix } from "../shm/layout.ts";
import type { ReadingEnd } from "../shm/reading.ts";

/**
 * A message, held until it is released: its bytes stay as they are so long, and its slot is not used again.
 *
 * A subscriber uses the same object again for a later message, so keep none after its release.
 */
export class Message implements Disposable {
  readonly #end: ReadingEnd;
  readonly #slotId: number;
  readonly #prefixBytes: number;
  readonly #released: () => void;
  #slot: Uint8Array<ArrayBuffer> | null = null;
  #size = 0;
  #data = new Uint8Array();
  #ordinal = 0;
  #held = false;

  constructor(end: ReadingEnd, slotId: number, prefixBytes: number, released: () => void) {
    this.#end = end;
    this.#slotId = slotId;
    this.#prefixBytes = prefixBytes;
    this.#released = released;
  }

  /** For its subscriber: this is the message that was read last now. */
  take(): this {
    const slot = this.#end.slotView, size = this.#end.size;
    if (slot !== this.#slot || size !== this.#size) {
      this.#slot = slot;
      this.#size = size;
      this.#data = slot.subarray(0, size);
    }
    this.#ordinal = this.#end.ordinal;
    this.#held = true;
    return this;
  }

  /**
   * The message, in shared memory that cannot be written to: writing kills the process. Empty once the subscriber
   * is closed.
   */
  get data(): Uint8Array<ArrayBuffer> {
    return this.#data;
  }

  /** Its number in the channel, of all publishers together; from 1 on. */
  get ordinal(): number {
    return this.#ordinal;
  }

  /** When it was published: CLOCK_MONOTONIC in nanoseconds. To be read while it is held. */
  get timestampNs(): bigint {
    const { buffer, byteOffset } = this.#data;
    const prefix = new DataView(buffer, byteOffset - this.#prefixBytes, Prefix.fixedBytes);
    return prefix.getBigUint64(Prefix.timestamp, true);
  }

  /** Its slot in the channel. */
  get slotId(): number {
    return this.#slotId;
  }

  /** Whether it is held still. */
  get held(): boolean {
    return this.#held;
  }

  /** Lets it go. Does nothing the second time. */
  release(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#end.release(this.#slotId);
    this.#released();
  }

  /** For its subscriber: it was released with all others. */
  expire(): void {
    this.#held = false;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
