/** A message as its subscriber holds it. */

import { Prefix, PrefixFlag } from "../shm/layout.ts";
import type { ReadingEnd } from "../shm/reading.ts";
import { SubscriberStruct } from "../shm/structs.ts";
import type { Codec } from "./codec.ts";
import type { VirtualChannelNames } from "./virtual_channels.ts";

/** One of several that hold a message. */
export interface SharedMessage<Value = Uint8Array> extends Disposable {
  readonly message: Message<Value>;
  /** Lets it go. Does nothing the second time. */
  release(): void;
}

/**
 * A message, held until it is released: its bytes stay as they are so long, and its slot is not used again.
 *
 * A subscriber uses the same object again for a later message, so keep none after its release.
 */
export class Message<Value = Uint8Array> implements Disposable {
  readonly #end: ReadingEnd;
  readonly #slotId: number;
  readonly #codec: Codec<Value>;
  readonly #channels: VirtualChannelNames;
  #data = new Uint8Array();
  /** Index of the buffer that `#data` is in. */
  #buffer = -1;
  #ordinalLow = 0;
  #ordinalHigh = 0;
  #checksumError = false;
  /** Those that hold it besides its reader, and whether the reader has let it go before them. */
  #shares = 0;
  #left = false;

  constructor(
    end: ReadingEnd,
    slotId: number,
    codec: Codec<Value>,
    channels: VirtualChannelNames,
  ) {
    this.#end = end;
    this.#slotId = slotId;
    this.#codec = codec;
    this.#channels = channels;
  }

  /** For its subscriber: this is the message that was read last now. */
  take(): this {
    const { fields } = this.#end, buffer = fields[SubscriberStruct.bufferIndex / 4];
    // Views of a buffer that was unmapped in the meantime are empty.
    if (this.#data.length !== fields[SubscriberStruct.messageSize / 4] || this.#buffer !== buffer) {
      this.#data = this.#end.payload;
      this.#buffer = buffer;
    }
    this.#ordinalLow = fields[SubscriberStruct.ordinal / 4];
    this.#ordinalHigh = fields[SubscriberStruct.ordinal / 4 + 1];
    this.#checksumError = false;
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
    return this.#ordinalLow + this.#ordinalHigh * 0x1_0000_0000;
  }

  /** When it was published: CLOCK_MONOTONIC in nanoseconds. To be read while it is held. */
  get timestampNs(): bigint {
    const words = this.#prefix, word = Prefix.timestamp / 4;
    return BigInt(words[word + 1]) << 32n | BigInt(words[word]);
  }

  /** The virtual channel that it was published on; -1 for none. To be read while it is held. */
  get vchanId(): number {
    return this.#prefix[Prefix.vchan / 4] | 0;
  }

  /**
   * The channel that it was published on: of a multiplexer's subscriber, the virtual channel. null where the server
   * has not told its name yet; asking for it here makes the subscriber ask the server. To be read while it is held.
   */
  get channel(): string | null {
    return this.#channels.nameOf(this.vchanId);
  }

  get #prefix(): Uint32Array<ArrayBuffer> {
    return this.#end.prefixOf(this.#buffer, this.#slotId);
  }

  /**
   * Where it is in `sharedMemory()`, for WebAssembly modules of your own, good while it is held. As with
   * `data`, writing there kills the process.
   *
   * @throws {Error} If the channel has split buffers.
   * @throws {RangeError} If the messages of this process do not fit into the 4 GiB of that memory.
   */
  get address(): number {
    return this.#end.addressOf(this.#buffer, this.#slotId);
  }

  /** The metadata that goes with it. To be read while it is held. */
  get metadata(): Uint8Array<ArrayBuffer> {
    return this.#end.metadataOf(this.#buffer, this.#slotId);
  }

  /**
   * What the allocator that made its memory calls it: see `PublisherOptions.splitBuffers`. null where none did. To be
   * read while it is held.
   */
  get memoryHandle(): bigint | null {
    return this.#end.handleOf(this.#buffer, this.#slotId);
  }

  /**
   * What it means, by the subscriber's codec; without one, a copy of its bytes. Decoded anew each time. To be read
   * while it is held.
   *
   * @throws What the codec throws.
   */
  get value(): Value {
    return this.#codec.decode(this.#data);
  }

  /** Whether it only says that a publisher is there: see `SubscriberOptions.passActivation`. To be read while held. */
  get isActivation(): boolean {
    return (this.#flags & PrefixFlag.activation) !== 0;
  }

  /** Whether it was passed on from another machine: see `PublisherOptions.tunnel`. To be read while it is held. */
  get isCrossMachine(): boolean {
    return (this.#flags & PrefixFlag.crossMachine) !== 0;
  }

  get #flags(): number {
    return this.#prefix[Prefix.flags / 4];
  }

  /** Whether its checksum is wrong: see `SubscriberOptions.passChecksumErrors`. */
  get checksumError(): boolean {
    return this.#checksumError;
  }

  /** For its subscriber: its checksum is wrong. */
  markDamaged(): void {
    this.#checksumError = true;
  }

  /** For its subscriber: only its first bytes are for the user. */
  shorten(bytes: number): void {
    if (bytes < this.#data.length) this.#data = this.#data.subarray(0, bytes);
  }

  /** Its slot in the channel. */
  get slotId(): number {
    return this.#slotId;
  }

  /** Whether it is held still. */
  get held(): boolean {
    return this.#end.holds(this.#slotId);
  }

  /** Lets it go. Does nothing the second time. What was shared stays held until all have let it go. */
  release(): void {
    if (this.#shares > 0) this.#left = true;
    else this.#end.release(this.#slotId);
  }

  /**
   * Holds it once more, for somebody who lets it go in their own time: `using mine = message.share()`. It counts once
   * for `maxActiveMessages`, and is the same object to all.
   *
   * @throws {Error} If it was released before.
   */
  share(): SharedMessage<Value> {
    if (!this.held || this.#left) throw new Error(`Cannot share message ${this.ordinal}: it was released`);
    this.#shares++;
    let shared = true;
    const release = () => {
      if (!shared) return;
      shared = false;
      if (--this.#shares > 0 || !this.#left) return;
      this.#left = false;
      this.#end.release(this.#slotId);
    };
    return { message: this, release, [Symbol.dispose]: release };
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
