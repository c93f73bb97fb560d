/** The receiving end of a channel. */

import type { ReadingEnd } from "../shm/reading.ts";
import type { Control } from "./control.ts";
import { ChecksumError } from "./errors.ts";
import { Message } from "./message.ts";
import { Messages } from "./messages.ts";
import { checkSubscriberOptions, type SubscriberOptions } from "./subscriber_options.ts";
import { type AttachedSubscriber, SubscriberRegistration } from "./subscriber_registration.ts";
import type { SyncWaitOptions, WaitOptions } from "./waiter.ts";

const NO_OPTIONS: SyncWaitOptions = {};

/**
 * Reads the messages of a channel, each once and in order. Made by `Client.createSubscriber`.
 *
 * All methods but `wait`, `messages` and `close` return at once, whatever the server and the publishers do.
 */
export class Subscriber<Value = Uint8Array>
  implements Disposable, AsyncDisposable, AsyncIterable<Message<Value>> {
  readonly #registration: SubscriberRegistration<Value>;
  readonly #options: SubscriberOptions<Value>;
  /** Whether messages are looked at before they are handed out. */
  readonly #inspects: boolean;
  #drops = 0;

  private constructor(registration: SubscriberRegistration<Value>, options: SubscriberOptions<Value>) {
    this.#registration = registration;
    this.#options = options;
    this.#inspects = (options.checksum ?? false) !== false || options.onReceive !== undefined;
  }

  /** For `Client`. */
  static async create<Value>(
    control: Control,
    channel: string,
    options: SubscriberOptions<Value>,
  ): Promise<Subscriber<Value>> {
    checkSubscriberOptions(channel, options);
    return new Subscriber(await SubscriberRegistration.create(control, channel, options), options);
  }

  get channel(): string {
    return this.#registration.channel;
  }

  /** Whether reliable publishers wait for it. */
  get reliable(): boolean {
    return this.#options.reliable ?? false;
  }

  /** Slots of the channel; 0 while it has had no publisher. */
  get numSlots(): number {
    return this.#registration.use().blocks.numSlots;
  }

  /** Bytes that a slot has for a message now; 0 while the channel has had no publisher. */
  get slotBytes(): number {
    return this.#registration.use().end?.slotBytes ?? 0;
  }

  /** What the messages are, as the first to say so said it. Empty: nobody has yet. */
  get type(): Uint8Array {
    return this.#registration.use().type;
  }

  /** Bytes for a checksum in front of each message. */
  get checksumBytes(): number {
    return this.#registration.use().checksumBytes;
  }

  /** Bytes for metadata in front of each message. */
  get metadataBytes(): number {
    return this.#registration.use().metadataBytes;
  }

  /** Messages held. */
  get numActiveMessages(): number {
    return this.#registration.use().end?.active ?? 0;
  }

  /** Number of the virtual channel; -1 where it is none. */
  get vchanId(): number {
    return this.#registration.use().vchanId;
  }

  /** Places in its queue, as the server gave them; 0 where the channel has no room for one. */
  get queueSize(): number {
    return this.#registration.use().queueSize;
  }

  /** Messages that were overwritten before they were read, or that its queue had no place for. */
  get drops(): number {
    return this.#drops;
  }

  /**
   * Reads the oldest message that was not read yet.
   *
   * @returns null where there is none, or as many messages are held as may be. The message is the caller's until it
   * is released, and the object is used again after that.
   * @throws {ChecksumError} If its checksum is wrong; see `SubscriberOptions.checksum`.
   */
  read(): Message<Value> | null {
    return this.#readNext() ?? (this.#registration.letGoTrigger() ? this.#readNext() : null);
  }

  #readNext(): Message<Value> | null {
    const attached = this.#registration.use(), { end } = attached;
    while (end !== null && end.readNext()) {
      const message = this.#take(attached, end);
      if (message !== null) return message;
    }
    return null;
  }

  /** Reads the newest message and skips all older ones. Otherwise like `read`. */
  readNewest(): Message<Value> | null {
    return this.#readNewest() ?? (this.#registration.letGoTrigger() ? this.#readNewest() : null);
  }

  #readNewest(): Message<Value> | null {
    const attached = this.#registration.use(), { end } = attached;
    return end !== null && end.readNewest() ? this.#take(attached, end) : null;
  }

  /**
   * Reads the message published at a time, whether it was read before or not.
   *
   * @param timestampNs As `Message.timestampNs` says it.
   * @returns null where it is not there any more, or is held already, or as many are held as may be.
   */
  find(timestampNs: bigint): Message<Value> | null {
    const attached = this.#registration.use(), { end } = attached;
    return end !== null && end.find(timestampNs) ? this.#take(attached, end) : null;
  }

  /**
   * Reads all messages that are there, each released when `process` returns.
   *
   * @returns How many they were.
   */
  processAll(process: (message: Message<Value>) => void): number {
    let count = 0;
    for (let message = this.read(); message !== null; message = this.read(), count++) {
      try {
        process(message);
      } finally {
        message.release();
      }
    }
    return count;
  }

  /**
   * The fd that becomes readable when there may be messages, to be waited for by the caller's own means. It stays so
   * until `read` or `readNewest` has found nothing. Publishers write to it with every message from now on.
   */
  get pollFd(): number {
    return this.#registration.waiter.pollFd;
  }

  /**
   * Waits until there is a message to read, and less are held than may be.
   *
   * @returns false where the time ran out first, or the subscriber was closed.
   */
  wait(options?: WaitOptions): Promise<boolean> {
    return this.#registration.waiter.wait(options);
  }

  /** As `wait`, but blocks the thread: timers and promises rest. For programs without an event loop. */
  waitSync(options: SyncWaitOptions = NO_OPTIONS): boolean {
    return this.#registration.waiter.waitSync(options);
  }

  /**
   * All messages from now on, each released when the next one is asked for. Ends when the subscriber is closed.
   *
   * @throws The signal's reason, when it is aborted.
   */
  messages(options: { signal?: AbortSignal } = {}): Messages<Value> {
    const registration = this.#registration;
    return new Messages({
      read: () => this.read(),
      wait: (options) => registration.waiter.wait(options),
      breathe: () => registration.breathe(),
      get closed() {
        return registration.closed;
      },
    }, options);
  }

  [Symbol.asyncIterator](): Messages<Value> {
    return this.messages();
  }

  /** Closes the subscriber at once, and releases its messages; the promise resolves when the server knows. */
  close(): Promise<void> {
    return this.#registration.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The message just read; null where the user's function wants to skip it. */
  #take(attached: AttachedSubscriber<Value>, end: ReadingEnd): Message<Value> | null {
    const { slotId, dropped } = end;
    const message = (attached.messages[slotId] ?? this.#makeMessage(attached, end, slotId)).take();
    if (dropped > 0) this.#dropped(dropped);
    return !this.#inspects || this.#inspect(message, end) ? message : null;
  }

  #dropped(count: number): void {
    this.#drops += count;
    try {
      this.#options.onDrop?.(count);
    } catch (error) {
      reportError(error); // The message is not to blame.
    }
  }

  /** Verifies a message's checksum, and shows it to the user's function. Returns whether it is to be read. */
  #inspect(message: Message<Value>, end: ReadingEnd): boolean {
    const { checksum = false, passChecksumErrors = false, onReceive } = this.#options;
    try {
      if (checksum !== false && !end.checksumMatches) {
        if (!passChecksumErrors) throw new ChecksumError(this.channel, message.ordinal);
        message.markDamaged();
      }
      const bytes = onReceive?.(message.data) ?? message.data.length;
      if (bytes > 0) message.shorten(bytes);
      else message.release();
      return bytes > 0;
    } catch (error) {
      message.release();
      throw error;
    }
  }

  #makeMessage(attached: AttachedSubscriber<Value>, end: ReadingEnd, slotId: number): Message<Value> {
    return attached.messages[slotId] = new Message(
      end,
      slotId,
      attached.codec,
      this.#registration.virtualChannels,
    );
  }
}
