/** The sending end of a channel. */

import type { LeasedSlot } from "../shm/leases.ts";
import type { PublishingEnd } from "../shm/publishing.ts";
import type { Control } from "./control.ts";
import { TimeoutError } from "./errors.ts";
import { Lease } from "./lease.ts";
import { checkPublisherOptions, type PublisherOptions } from "./publisher_options.ts";
import { type AttachedPublisher, PublisherRegistration } from "./publisher_registration.ts";
import type { Retirements } from "./retirements.ts";
import type { SyncWaitOptions, WaitOptions } from "./waiter.ts";

/** Messages sent before the event loop gets its turn. */
const BREATH_EVERY = 256;
/** What `send` returns where it need not wait. */
const SENT = Promise.resolve();
const NO_OPTIONS: SyncWaitOptions = {};

/**
 * Publishes messages on a channel. Made by `Client.createPublisher`.
 *
 * All methods but `wait`, `send` and `close` return at once, whatever the server and the subscribers do.
 */
export class Publisher<Value = Uint8Array> implements Disposable, AsyncDisposable {
  readonly #registration: PublisherRegistration;
  readonly #options: PublisherOptions<Value>;
  /** Where the buffer is that the user may be writing to. */
  #lent: PublishingEnd | null = null;
  #sent = 0;

  private constructor(registration: PublisherRegistration, options: PublisherOptions<Value>) {
    this.#registration = registration;
    this.#options = options;
  }

  /** For `Client`. */
  static async create<Value>(
    control: Control,
    channel: string,
    options: PublisherOptions<Value>,
  ): Promise<Publisher<Value>> {
    checkPublisherOptions(channel, options);
    return new Publisher(await PublisherRegistration.create(control, channel, options), options);
  }

  get channel(): string {
    return this.#registration.channel;
  }

  /** Whether messages wait for subscribers. */
  get reliable(): boolean {
    return this.#options.reliable ?? false;
  }

  /** Bytes that a slot has for a message now. */
  get slotBytes(): number {
    return this.#registration.use().end.slotBytes;
  }

  /** What the messages are, as the first to say so said it. Empty: nobody has yet. */
  get type(): Uint8Array {
    return this.#registration.use().type;
  }

  /** Slots of the channel. */
  get numSlots(): number {
    return this.#registration.use().blocks.numSlots;
  }

  /** Subscribers of the channel; of a virtual channel, its own and those of its multiplexer. */
  get numSubscribers(): number {
    const { blocks, vchanId } = this.#registration.use();
    return blocks.numSubscribers(vchanId);
  }

  /** Number of the virtual channel; -1 where it is none. */
  get vchanId(): number {
    return this.#registration.use().vchanId;
  }

  /** The ordinal of the message published last; 0 before the first. Ordinals count all publishers of a channel. */
  get ordinal(): number {
    return this.#registration.use().end.ordinal;
  }

  /**
   * Where the next message is to be written: shared memory, to be handed on with `publish(length)`.
   *
   * @param bytes How long the message may get. Slots grow as needed. Default: what slots have.
   * @returns The whole slot, of `bytes` or more. null where a reliable publisher has to wait, until a subscriber has
   * read or there is one, or where all slots are held.
   * @throws {RangeError} If the message is longer than slots may get.
   */
  getBuffer(bytes?: number): Uint8Array<ArrayBuffer> | null {
    const { end } = this.#registration.use();
    const buffer = end.buffer(bytes) ?? (this.#registration.letGoTrigger() ? end.buffer(bytes) : null);
    this.#lent = buffer === null ? null : end;
    return buffer;
  }

  /**
   * Where the metadata of the next message is to be written, after `getBuffer`: `metadataBytes` bytes of shared memory,
   * with what the slot's message before had.
   */
  get metadata(): Uint8Array<ArrayBuffer> {
    return this.#lent?.metadata ?? this.#withoutBuffer();
  }

  /**
   * Where `getBuffer`'s buffer is in `sharedMemory()`, to be written by WebAssembly modules of your own.
   *
   * @throws {Error} If the channel has split buffers.
   * @throws {RangeError} If the messages of this process do not fit into the 4 GiB of that memory.
   */
  get address(): number {
    return this.#lent?.address ?? this.#withoutBuffer();
  }

  /**
   * What the allocator that made `getBuffer`'s buffer calls its memory: see `PublisherOptions.splitBuffers`. null where
   * none did.
   */
  get memoryHandle(): bigint | null {
    return (this.#lent ?? this.#withoutBuffer()).memoryHandle;
  }

  /**
   * Publishes a message: the first so many bytes of `getBuffer`'s buffer, or a copy of bytes.
   *
   * @param metadata Copied in front of it; the rest of the room for metadata is cleared. Default: left as it is.
   * @returns Whether it was published. false: there is no slot for it now (see `wait`), or the buffer was lost with
   * the server's memory, which `onConnectionChange` reports.
   */
  publish(message: number | Uint8Array, metadata?: Uint8Array): boolean {
    const bytes = typeof message === "number" ? message : this.#copy(message);
    if (bytes === null) return false;
    const lent = this.#lent;
    if (lent === null || lent !== this.#registration.attached.end) return this.#withoutSlot();
    const length = metadata === undefined && this.#options.onSend === undefined
      ? bytes
      : this.#complete(lent, bytes, metadata);
    this.#lent = null;
    lent.publish(length);
    this.#registration.checkTopology();
    return true;
  }

  /** Copies a message into a slot. Returns its length; null where there is no slot. */
  #copy(message: Uint8Array): number | null {
    const buffer = this.getBuffer(message.length);
    buffer?.set(message);
    return buffer === null ? null : message.length;
  }

  /** Adds what the user wants to add. Returns how long the message is then. */
  #complete(lent: PublishingEnd, bytes: number, metadata: Uint8Array | undefined): number {
    if (metadata !== undefined) this.#setMetadata(metadata);
    return this.#options.onSend?.(lent.payload.subarray(0, bytes)) ?? bytes;
  }

  /** The buffer was lost with the memory that it was in, or there has been none. */
  #withoutSlot(): false {
    this.#registration.use();
    if (this.#lent === null) return this.#withoutBuffer();
    this.#lent = null;
    return false;
  }

  #withoutBuffer(): never {
    throw new Error(`Cannot publish on ${this.channel}: no buffer was asked for with getBuffer`);
  }

  #setMetadata(metadata: Uint8Array): void {
    const room = this.metadata;
    if (metadata.length > room.length) {
      throw new RangeError(
        `Cannot publish ${metadata.length} bytes of metadata on ${this.channel}: there is room for ${room.length}, ` +
          "see `metadataBytes`",
      );
    }
    room.set(metadata);
    room.fill(0, metadata.length);
  }

  /**
   * Publishes a value, by the publisher's codec.
   *
   * @returns Whether there was a slot for it.
   */
  publishValue(value: Value): boolean {
    return this.publish(this.#encode(value));
  }

  /** As `send`, with a value, by the publisher's codec. */
  sendValue(value: Value, options?: WaitOptions): Promise<void> {
    return this.send(this.#encode(value), options);
  }

  #encode(value: Value): Uint8Array {
    return this.#options.codec?.encode(value) ?? value as Uint8Array;
  }

  /**
   * Takes a slot out of its turn, to be published or released at leisure, in any order. Messages are numbered when
   * they are published. See `maxOutstandingLeases`.
   *
   * @param bytes How long the message may get. Default: what slots have.
   * @returns null where no slot is to be had, or as many are leased as may be.
   */
  lease(bytes?: number): Lease | null {
    const attached = this.#registration.use(), slot = attached.end.lease(bytes);
    this.#lent = null;
    return slot === null ? null : attached.leases[slot.slotId] ?? this.#makeLease(attached, slot);
  }

  /**
   * Takes a certain slot out of its turn: one that `retirements` has named.
   *
   * @returns null where somebody has it, or as many are leased as may be.
   */
  reclaim(slotId: number): Lease | null {
    const attached = this.#registration.use(), slot = attached.end.reclaim(slotId);
    this.#lent = null;
    return slot === null ? null : attached.leases[slot.slotId] ?? this.#makeLease(attached, slot);
  }

  #makeLease({ end, leases }: AttachedPublisher, slot: LeasedSlot): Lease {
    return leases[slot.slotId] = new Lease(end, slot, () => this.#registration.checkTopology());
  }

  /**
   * The slots of messages that every subscriber has read: `for await (const slotId of publisher.retirements)`.
   *
   * @throws {Error} If the publisher was made without `notifyRetirement`.
   */
  get retirements(): Retirements {
    if (this.#options.notifyRetirement === true) return this.#registration.retirements;
    throw new Error(
      `Cannot tell what is retired on ${this.channel}: create the publisher with notifyRetirement`,
    );
  }

  /**
   * Wakes the subscribers that sleep, where `autoFlush` is false and something was published since the last time.
   * Waiting for a slot and closing do it too.
   */
  flush(): void {
    this.#registration.attached.end.flush();
  }

  /**
   * The fd that becomes readable when a reliable publisher may get a slot, to be waited for by the caller's own means.
   * It stays so until `getBuffer` has found none. Subscribers write to it with every release from now on.
   */
  get pollFd(): number {
    return this.#registration.waiter.pollFd;
  }

  /**
   * Waits until a message can be published.
   *
   * @returns false where the time ran out first, or the publisher was closed.
   */
  wait(options?: WaitOptions): Promise<boolean> {
    return this.#registration.waiter.wait(options);
  }

  /** As `wait`, but blocks the thread: timers and promises rest. For programs without an event loop. */
  waitSync(options: SyncWaitOptions = NO_OPTIONS): boolean {
    return this.#registration.waiter.waitSync(options);
  }

  /**
   * Publishes a copy of bytes as soon as there is a slot.
   *
   * @throws {TimeoutError} If there was none in time.
   */
  send(message: Uint8Array, options?: WaitOptions): Promise<void> {
    try {
      return ++this.#sent % BREATH_EVERY !== 0 && this.publish(message) ? SENT : this.#send(message, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async #send(message: Uint8Array, options: WaitOptions | undefined): Promise<void> {
    if (this.#sent % BREATH_EVERY === 0) await this.#registration.breathe();
    while (!this.publish(message)) {
      if (await this.wait(options)) continue;
      this.#registration.use();
      throw new TimeoutError(
        `Cannot send on ${this.channel}: no slot was free within ${options?.timeoutMs} ms`,
      );
    }
  }

  /** Closes the publisher at once; the promise resolves when the server knows. What it published stays readable. */
  close(): Promise<void> {
    return this.#registration.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
