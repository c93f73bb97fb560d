/** The receiving end of a channel. */

import { closeAll, type Fd } from "../ffi/fd.ts";
import type { ControlBlocks } from "../shm/control_blocks.ts";
import type { ChecksumFunction } from "../shm/checksum.ts";
import { prefixBytes } from "../shm/layout.ts";
import { ReadingEnd } from "../shm/reading.ts";
import { type AnswerBody, openAnswer } from "./answer.ts";
import { takeBlocks } from "./channel_memory.ts";
import { bytesCodec, type Codec } from "./codec.ts";
import { type Control, type Handle, quietly } from "./control.ts";
import { ChecksumError, ClosedError } from "./errors.ts";
import { Message, type MessageLayout } from "./message.ts";
import { Peers } from "./peers.ts";
import type { Answer, RequestInit } from "./server_link.ts";
import { checkVchanId, VirtualChannelNames } from "./virtual_channels.ts";
import { type SyncWaitOptions, Waiter, type WaitOptions } from "./waiter.ts";

/** What a subscriber is to be. */
export interface SubscriberOptions<Value = Uint8Array> {
  /** Whether reliable publishers wait for it. Default: false. */
  reliable?: boolean;
  /** What the messages are; checked by the server, for equality. Default: unknown. */
  type?: string | Uint8Array;
  /** What messages mean, for `Message.value`. Default: a copy of their bytes. */
  codec?: Codec<Value>;
  /**
   * Whether checksums are verified: true for CRC32 and CRC32C, whichever fits, or what computes another. Messages without
   * one are read as they are. Default: false.
   */
  checksum?: boolean | ChecksumFunction;
  /** Whether messages with a wrong checksum are read, with `checksumError` set, instead of a `ChecksumError`. Default: false. */
  passChecksumErrors?: boolean;
  /** Whether messages are read that only say that a publisher is there: `Message.isActivation`. Default: false. */
  passActivation?: boolean;
  /** Whether messages missed are counted. Default: true. */
  detectDrops?: boolean;
  /** Told how many messages were missed just before the one that is being read. */
  onDrop?: (count: number) => void;
  /**
   * Sees each message before it is read. Returns how much of it is to be read if that is not all: 0 skips it. What it
   * throws, `read` throws; the message is skipped.
   */
  onReceive?: (message: Uint8Array<ArrayBuffer>) => number | void;
  /** Whether messages may be written to: all subscribers see it. Default: false, writing kills the process. */
  writable?: boolean;
  /** Whether it passes messages on to another machine. Default: false. */
  tunnel?: boolean;
  /** Messages that may be held at a time. Default: 1. */
  maxActiveMessages?: number;
  /**
   * The multiplexer of the virtual channel. Default: none. (Who subscribes to the multiplexer's own name reads all its
   * virtual channels.)
   */
  mux?: string;
  /** Number of the virtual channel, 0 to 1022. Default: the lowest that is free, or that of the channel where it exists. */
  vchanId?: number;
  /**
   * Places in its queue, 1 to 1024, out of the channel's arena; 0 for as many as the channel gives. The queue is what
   * the reference's publishers and tools know of a subscriber. Reading goes by the slots, which have all that is
   * unread, in order: a queue that overflows costs no message. Default: 0.
   */
  queueSize?: number;
  /** Subscribers that the channel may have, 0 for any number. Default: 0. */
  maxSubscribers?: number;
}

/** Messages of a loop before the event loop gets its turn. */
const BREATH_EVERY = 256;

/** What a subscriber has as long as its channel's memory lives. */
interface Attached<Value> {
  readonly channelId: number;
  readonly subscriberId: number;
  readonly vchanId: number;
  readonly blocks: ControlBlocks;
  /** null: no publisher has been there yet, and the channel has no memory. */
  readonly end: ReadingEnd | null;
  /** Per slot, the object that stands for its message. */
  readonly messages: Message<Value>[];
  readonly layout: MessageLayout<Value>;
}

/**
 * Reads the messages of a channel, each once and in order. Made by `Client.createSubscriber`.
 *
 * All methods but `wait`, `messages` and `close` return at once, whatever the server and the publishers do.
 */
export class Subscriber<Value = Uint8Array>
  implements Disposable, AsyncDisposable, AsyncIterable<Message<Value>> {
  readonly #control: Control;
  readonly #options: SubscriberOptions<Value>;
  /** Whether messages are looked at before they are handed out. */
  readonly #inspects: boolean;
  readonly #handle: Handle;
  #attached: Attached<Value> | null = null;
  /** Memory of a server that is gone, with messages that the user still holds. */
  readonly #outdated = new Set<Attached<Value>>();
  #waiter: Waiter | null = null;
  #peers = Peers.none();
  /** num_pub_updates when the triggers were asked for; -1: never. */
  #seenUpdates = -1;
  #refreshing = false;
  #drops = 0;
  readonly #channels: VirtualChannelNames;
  #failure: Error | null = null;
  #closing: Promise<void> | null = null;

  private constructor(control: Control, readonly channel: string, options: SubscriberOptions<Value>) {
    this.#control = control;
    this.#inspects = (options.checksum ?? false) !== false || options.onReceive !== undefined;
    this.#options = options;
    this.#channels = new VirtualChannelNames(control, channel, options.mux !== undefined);
    this.#handle = {
      channel,
      title: `subscriber to ${channel}`,
      createRequest: (keepId) => this.#createRequest(keepId),
      adopt: (answer) => this.#adopt(answer),
      removeRequest: () => removeRequest(channel, this.#attached?.subscriberId ?? -1),
      release: () => this.#release(null),
      fail: (reason) => this.#release(reason),
    };
  }

  /** For `Client`. */
  static async create<Value>(
    control: Control,
    channel: string,
    options: SubscriberOptions<Value>,
  ): Promise<Subscriber<Value>> {
    const { maxActiveMessages = 1 } = options;
    if (!Number.isInteger(maxActiveMessages) || maxActiveMessages < 1 || maxActiveMessages > 0x7fff_ffff) {
      throw new RangeError(
        `Cannot subscribe to ${channel}: maxActiveMessages must be a positive integer, not ${maxActiveMessages}`,
      );
    }
    checkVchanId(channel, options);
    const subscriber = new Subscriber<Value>(control, channel, options);
    await control.create(subscriber.#handle);
    return subscriber;
  }

  /** Whether reliable publishers wait for it. */
  get reliable(): boolean {
    return this.#options.reliable ?? false;
  }

  /** Slots of the channel; 0 while it has had no publisher. */
  get numSlots(): number {
    return this.#use().blocks.numSlots;
  }

  /** Number of the virtual channel; -1 where it is none. */
  get vchanId(): number {
    return this.#use().vchanId;
  }

  /** Messages that were overwritten before they were read. */
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
    const attached = this.#use(), { end } = attached;
    while (end !== null && end.readNext()) {
      const message = this.#take(attached, end);
      if (message !== null) return message;
    }
    return null;
  }

  /** Reads the newest message and skips all older ones. Otherwise like `read`. */
  readNewest(): Message<Value> | null {
    const attached = this.#use(), { end } = attached;
    return end !== null && end.readNewest() ? this.#take(attached, end) : null;
  }

  /**
   * Reads the message published at a time, whether it was read before or not.
   *
   * @param timestampNs As `Message.timestampNs` says it.
   * @returns null where it is not there any more, or is held already, or as many are held as may be.
   */
  find(timestampNs: bigint): Message<Value> | null {
    const attached = this.#use(), { end } = attached;
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
      using held = message;
      process(held);
    }
    return count;
  }

  /** The fd that becomes readable when there may be messages, to be waited for by the caller's own means. */
  get pollFd(): number {
    this.#use();
    return this.#waiter!.fdNumber;
  }

  /**
   * Waits until there is a message to read, and less are held than may be.
   *
   * @returns false where the time ran out first, or the subscriber was closed.
   */
  wait(options?: WaitOptions): Promise<boolean> {
    this.#use();
    return this.#waiter!.wait(options);
  }

  /** As `wait`, but blocks the thread: timers and promises rest. For programs without an event loop. */
  waitSync(options: SyncWaitOptions = {}): boolean {
    this.#use();
    return this.#waiter!.waitSync(options);
  }

  /**
   * All messages from now on, each released when the next one is asked for. Ends when the subscriber is closed.
   *
   * @throws The signal's reason, when it is aborted.
   */
  async *messages(options: { signal?: AbortSignal } = {}): AsyncGenerator<Message<Value>, void, undefined> {
    for (let count = 1; this.#closing === null; count++) {
      options.signal?.throwIfAborted();
      const message = this.read();
      if (message === null) await this.wait(options);
      else {
        try {
          yield message;
        } finally {
          message.release();
        }
        if (count % BREATH_EVERY === 0) await this.#waiter?.breathe();
      }
    }
  }

  [Symbol.asyncIterator](): AsyncGenerator<Message<Value>, void, undefined> {
    return this.messages();
  }

  /** Closes the subscriber at once, and releases its messages; the promise resolves when the server knows. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  #close(): Promise<void> {
    if (this.#failure !== null) return Promise.resolve();
    const removed = this.#control.remove(this.#handle);
    this.#release(null);
    return removed;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** To be called before each use: sees what the server has sent, and what has changed. */
  #use(): Attached<Value> {
    this.#control.tick();
    const attached = this.#attached;
    if (attached === null) {
      throw this.#failure ?? new ClosedError(`Cannot use the subscriber to ${this.channel}: it is closed`);
    }
    this.#checkTopology(attached);
    return attached;
  }

  /** The message just read; null where the user's function wants to skip it. */
  #take(attached: Attached<Value>, end: ReadingEnd): Message<Value> | null {
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

  #makeMessage(attached: Attached<Value>, end: ReadingEnd, slotId: number): Message<Value> {
    return attached.messages[slotId] = new Message(
      end,
      slotId,
      attached.layout,
      () => this.#released(attached),
      this.#channels,
    );
  }

  #released(attached: Attached<Value>): void {
    if (attached === this.#attached) this.#waiter?.look();
    else if (attached.end?.active === 0) this.#dispose(attached);
  }

  #createRequest(keepId: boolean): RequestInit {
    const { type = "", maxActiveMessages = 1, maxSubscribers = 0 } = this.#options;
    const value = {
      channelName: this.channel,
      subscriberId: keepId ? this.#attached!.subscriberId : -1,
      isReliable: this.reliable,
      type: typeof type === "string" ? new TextEncoder().encode(type) : type,
      maxActiveMessages,
      subscriberQueueSize: this.#options.queueSize ?? 0,
      mux: this.#options.mux ?? "",
      vchanId: this.#options.vchanId ?? -1,
      processId: BigInt(Deno.pid),
      maxSubscribers,
      forTunnel: this.#options.tunnel ?? false,
    };
    return { request: { case: "createSubscriber", value } };
  }

  #adopt(answer: Answer): boolean {
    const what = `subscribe to ${this.channel}`;
    return openAnswer(answer, "createSubscriber", what, (body, fds) => {
      const known = this.#attached?.subscriberId === body.subscriberId ? this.#attached : null;
      using cleanup = new DisposableStack();
      try {
        if (body.useSplitBuffers) {
          throw new Error(`Cannot ${what}: its buffers are split, which is not supported`);
        }
        const blocks = takeBlocks(this.#control, this.channel, body, body.numSlots, fds, known);
        cleanup.use(blocks);
        const trigger = fds.take(body.pollFdIndex);
        const peers = cleanup.use(
          Peers.take(fds, body.reliablePubTriggerFdIndexes, body.retirementFdIndexes),
        );
        const attached = blocks === null ? known! : this.#attach(body, blocks);
        cleanup.move();
        if (attached !== known) this.#leave();
        this.#attached = attached;
        this.#setTrigger(trigger);
        this.#setPeers(attached, peers, body.numPubUpdates & 0xffff);
        return attached === known;
      } catch (error) {
        this.#control.sendRemoval(removeRequest(this.channel, body.subscriberId));
        throw error;
      }
    });
  }

  #attach(body: AnswerBody<"createSubscriber">, blocks: ControlBlocks): Attached<Value> {
    const { channelId, subscriberId, vchanId } = body;
    const checksumBytes = body.checksumSize > 0 ? body.checksumSize : 4;
    const metadataBytes = Math.max(0, body.metadataSize);
    const { checksum, codec = bytesCodec() as Codec<unknown> as Codec<Value> } = this.#options;
    const end = blocks.numSlots === 0 ? null : new ReadingEnd({
      sessionId: this.#control.session.id,
      resolvedName: this.#options.mux || this.channel,
      blocks,
      id: subscriberId,
      vchanId,
      reliable: this.reliable,
      maxActiveMessages: this.#options.maxActiveMessages ?? 1,
      checksumBytes,
      metadataBytes,
      checksum: typeof checksum === "function" ? checksum : null,
      passActivation: this.#options.passActivation ?? false,
      detectDrops: this.#options.detectDrops ?? true,
      writable: this.#options.writable ?? false,
    });
    const layout = {
      prefixBytes: prefixBytes(checksumBytes, metadataBytes),
      checksumBytes,
      metadataBytes,
      codec,
    };
    return { channelId, subscriberId, vchanId, blocks, end, messages: [], layout };
  }

  /** Lets the channel's memory go, as soon as no message of it is held. */
  #leave(): void {
    const attached = this.#attached;
    if (attached === null) return;
    if ((attached.end?.active ?? 0) > 0) this.#outdated.add(attached);
    else this.#dispose(attached);
  }

  #dispose(attached: Attached<Value>): void {
    this.#outdated.delete(attached);
    for (const message of attached.messages) message?.expire();
    attached.end?.[Symbol.dispose]();
    attached.blocks[Symbol.dispose]();
  }

  #setTrigger(trigger: Fd): void {
    if (this.#waiter !== null) return this.#waiter.replace(trigger);
    this.#waiter = new Waiter(this.#control, trigger, () => this.#ready());
  }

  #ready(): boolean {
    const { end } = this.#use();
    return end !== null && !end.atLimit && end.mayHaveUnread;
  }

  #setPeers(attached: Attached<Value>, peers: Peers, seenUpdates: number): void {
    attached.end?.setPublisherTriggers(peers.triggerNumbers);
    attached.end?.setRetirementPipes(peers.pipeNumbers);
    this.#peers[Symbol.dispose]();
    this.#peers = peers;
    this.#seenUpdates = seenUpdates;
    this.#channels.expire();
    peers.ring();
  }

  #checkTopology(attached: Attached<Value>): void {
    const updates = attached.blocks.counters.numPubUpdates;
    if (updates !== this.#seenUpdates && !this.#refreshing) this.#refresh(attached, updates);
  }

  #refresh(attached: Attached<Value>, updates: number): void {
    const request: RequestInit = attached.end === null
      ? this.#createRequest(true)
      : { request: { case: "getTriggers", value: { channelName: this.channel } } };
    this.#refreshing = true; // Until it is settled, which may be at once.
    const sent = this.#control.refresh(request, (answer) => {
      this.#refreshing = false;
      if (answer !== null) this.#refreshed(attached, answer, updates);
    });
    if (!sent) this.#refreshing = false;
  }

  #refreshed(attached: Attached<Value>, answer: Answer, updates: number): void {
    if (this.#attached !== attached) return closeAll(answer.fds);
    if (attached.end === null) return this.#fillIn(answer);
    this.#seenUpdates = updates; // Whatever came: the same question again would get the same answer.
    quietly(() =>
      openAnswer(answer, "getTriggers", `learn who publishes on ${this.channel}`, (body, fds) => {
        const peers = Peers.take(fds, body.reliablePubTriggerFdIndexes, body.retirementFdIndexes);
        this.#setPeers(attached, peers, updates);
      })
    );
  }

  /** The channel may have its first publisher, and so its memory. */
  #fillIn(answer: Answer): void {
    try {
      this.#adopt(answer);
    } catch (error) {
      this.#control.forget(this.#handle);
      this.#release(error as Error);
    }
  }

  #release(failure: Error | null): void {
    this.#failure = failure;
    if (this.#attached !== null) this.#dispose(this.#attached);
    for (const attached of [...this.#outdated]) this.#dispose(attached);
    this.#attached = null;
    this.#peers[Symbol.dispose]();
    this.#waiter?.close(failure);
  }
}

function removeRequest(channelName: string, subscriberId: number): RequestInit {
  return { request: { case: "removeSubscriber", value: { channelName, subscriberId } } };
}
