/** The sending end of a channel. */

import { closeAll, type Fd } from "../ffi/fd.ts";
import { uid as ownUid } from "../ffi/process.ts";
import type { ControlBlocks } from "../shm/control_blocks.ts";
import { type ChecksumFunction, crc32 } from "../shm/checksum.ts";
import { align64 } from "../shm/layout.ts";
import { PublishingEnd } from "../shm/publishing.ts";
import { type AnswerBody, openAnswer } from "./answer.ts";
import { takeBlocks } from "./channel_memory.ts";
import type { Codec } from "./codec.ts";
import { type Control, type Handle, quietly } from "./control.ts";
import { ClosedError, TimeoutError } from "./errors.ts";
import { Lease } from "./lease.ts";
import { Peers } from "./peers.ts";
import { Retirements } from "./retirements.ts";
import type { Answer, RequestInit } from "./server_link.ts";
import { checkVchanId } from "./virtual_channels.ts";
import { type SyncWaitOptions, Waiter, type WaitOptions } from "./waiter.ts";

/** What a publisher is to be. All publishers of a channel must agree about most of it. */
export interface PublisherOptions<Value = Uint8Array> {
  /** Bytes that a slot has for a message, to begin with. */
  slotBytes: number;
  /** Slots of the channel; one more than all that publishers and subscribers hold at a time, at the least. */
  numSlots: number;
  /** Whether messages wait for subscribers, instead of being overwritten. Default: false. */
  reliable?: boolean;
  /** Whether the channel stays on this machine. Default: false. */
  local?: boolean;
  /** Whether slots never grow. Default: false. */
  fixedSize?: boolean;
  /** What the messages are, such as the name of a protobuf; checked by the server, for equality. Default: unknown. */
  type?: string | Uint8Array;
  /**
   * The multiplexer that carries the channel, as one of its virtual channels. These share the multiplexer's slots and
   * their size; each counts its messages for itself. Default: none, the channel has memory of its own.
   */
  mux?: string;
  /** Number of the virtual channel, 0 to 1022. Default: the lowest that is free, or that of the channel where it exists. */
  vchanId?: number;
  /**
   * Bytes of the channel for subscriber queues: 640 for each subscriber that leaves its queue's size to the channel,
   * 64000 for a hundred. Default: 0, subscribers have no queues.
   */
  subscriberQueueArenaBytes?: number;
  /** Publishers that the channel may have, 0 for any number. Default: 0. */
  maxPublishers?: number;
  /** Turns values into messages, for `publishValue` and `sendValue`. Default: values are bytes. */
  codec?: Codec<Value>;
  /** Whether messages carry a checksum: true for CRC32, or what computes another. Must not throw. Default: false. */
  checksum?: boolean | ChecksumFunction;
  /** Messages that may be leased at a time (see `lease`): the channel needs so many slots more. Default: 1. */
  maxOutstandingLeases?: number;
  /** Whether `retirements` tells which messages every subscriber has read. Default: false. */
  notifyRetirement?: boolean;
  /** Whether other publishers are told of unread messages that this one overwrites, too. Default: true. */
  notifyForcedReuse?: boolean;
  /** Whether slots that everybody has read are used again before those never used, to stay in cache. Default: false. */
  preferRetiredSlots?: boolean;
  /** Whether subscribers are told that it is there, as a reliable one always does: `Message.isActivation`. Default: false. */
  activate?: boolean;
  /** Whether it passes on messages of another machine, and marks them so. Default: false. */
  tunnel?: boolean;
  /** Sees each message before it is published, and may change it. Returns its length if that changes; what it throws keeps it back. */
  onSend?: (message: Uint8Array<ArrayBuffer>) => number | void;
  /** Told before slots grow, with their sizes in bytes. What it throws keeps them as they are. */
  onResize?: (fromBytes: number, toBytes: number) => void;
  /** Bytes for a checksum in front of each message. Default: 4. */
  checksumBytes?: number;
  /** Bytes for metadata in front of each message. Default: 0. */
  metadataBytes?: number;
}

/** Messages sent before the event loop gets its turn. */
const BREATH_EVERY = 256;
/** Looks for a slot without having been woken: a subscriber that was removed wakes nobody (section 5.13). */
const RECHECK_MS = 100;

/** What a publisher has as long as its channel's memory lives. */
interface Attached {
  readonly channelId: number;
  readonly publisherId: number;
  readonly vchanId: number;
  readonly blocks: ControlBlocks;
  readonly end: PublishingEnd;
}

/**
 * Publishes messages on a channel. Made by `Client.createPublisher`.
 *
 * All methods but `wait`, `send` and `close` return at once, whatever the server and the subscribers do.
 */
export class Publisher<Value = Uint8Array> implements Disposable, AsyncDisposable {
  readonly #control: Control;
  readonly #options: PublisherOptions<Value>;
  readonly #handle: Handle;
  #attached: Attached | null = null;
  #waiter: Waiter | null = null;
  #peers = Peers.none();
  /** num_sub_updates when the triggers were asked for; -1: never. */
  #seenUpdates = -1;
  #refreshing = false;
  #wantsKinds = false;
  /** Where the buffer is that the user may be writing to. */
  #lent: PublishingEnd | null = null;
  #buffer: Uint8Array<ArrayBuffer> | null = null;
  readonly #retirements = new Retirements();
  #sent = 0;
  #failure: Error | null = null;
  #closing: Promise<void> | null = null;

  private constructor(control: Control, readonly channel: string, options: PublisherOptions<Value>) {
    this.#control = control;
    this.#options = options;
    this.#handle = {
      channel,
      title: `publisher on ${channel}`,
      createRequest: (keepId) => this.#createRequest(keepId),
      adopt: (answer) => this.#adopt(answer),
      removeRequest: () => removeRequest(channel, this.#attached?.publisherId ?? -1),
      release: () => this.#release(null),
      fail: (reason) => this.#release(reason),
    };
  }

  /** For `Client`. */
  static async create<Value>(
    control: Control,
    channel: string,
    options: PublisherOptions<Value>,
  ): Promise<Publisher<Value>> {
    checkCount(channel, "slotBytes", options.slotBytes);
    checkCount(channel, "numSlots", options.numSlots);
    checkVchanId(channel, options);
    checkCount(channel, "maxOutstandingLeases", options.maxOutstandingLeases ?? 1);
    checkBytes(channel, "checksumBytes", options.checksumBytes ?? 4, 4);
    checkBytes(channel, "metadataBytes", options.metadataBytes ?? 0, 0);
    const publisher = new Publisher<Value>(control, channel, options);
    await control.create(publisher.#handle);
    return publisher;
  }

  /** Whether messages wait for subscribers. */
  get reliable(): boolean {
    return this.#options.reliable ?? false;
  }

  /** Bytes that a slot has for a message now. */
  get slotBytes(): number {
    return this.#use().end.slotBytes;
  }

  /** Slots of the channel. */
  get numSlots(): number {
    return this.#use().blocks.numSlots;
  }

  /** Subscribers of the channel; of a virtual channel, its own and those of its multiplexer. */
  get numSubscribers(): number {
    const { blocks, vchanId } = this.#use();
    return blocks.numSubscribers(vchanId);
  }

  /** Number of the virtual channel; -1 where it is none. */
  get vchanId(): number {
    return this.#use().vchanId;
  }

  /** The ordinal of the message published last; 0 before the first. Ordinals count all publishers of a channel. */
  get ordinal(): number {
    return this.#use().end.ordinal;
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
    const { end } = this.#use();
    const buffer = end.buffer(bytes);
    this.#lent = buffer === null ? null : end;
    this.#buffer = buffer;
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
   * Publishes a message: the first so many bytes of `getBuffer`'s buffer, or a copy of bytes.
   *
   * @param metadata Copied in front of it; the rest of the room for metadata is cleared. Default: left as it is.
   * @returns Whether it was published. false: there is no slot for it now (see `wait`), or the buffer was lost with
   * the server's memory, which `onConnectionChange` reports.
   */
  publish(message: number | Uint8Array, metadata?: Uint8Array): boolean {
    if (typeof message !== "number") {
      const buffer = this.getBuffer(message.length);
      if (buffer === null) return false;
      buffer.set(message);
      message = message.length;
    }
    const attached = this.#attached ?? this.#unusable();
    const lent = this.#lent;
    if (lent === null) return this.#withoutBuffer();
    if (lent !== attached.end) {
      this.#lent = null;
      return false;
    }
    if (metadata !== undefined) this.#setMetadata(metadata);
    const { onSend } = this.#options;
    if (onSend !== undefined) message = onSend(this.#buffer!.subarray(0, message)) ?? message;
    this.#lent = null;
    lent.publish(message);
    this.#checkTopology(attached);
    return true;
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
    const attached = this.#use();
    const slot = attached.end.lease(bytes);
    this.#lent = null;
    return slot === null ? null : new Lease(attached.end, slot, () => this.#leasePublished(attached));
  }

  /**
   * Takes a certain slot out of its turn: one that `retirements` has named.
   *
   * @returns null where somebody has it, or as many are leased as may be.
   */
  reclaim(slotId: number): Lease | null {
    const attached = this.#use();
    const slot = attached.end.reclaim(slotId);
    this.#lent = null;
    return slot === null ? null : new Lease(attached.end, slot, () => this.#leasePublished(attached));
  }

  #leasePublished(attached: Attached): void {
    if (attached === this.#attached) this.#checkTopology(attached);
  }

  /**
   * The slots of messages that every subscriber has read: `for await (const slotId of publisher.retirements)`.
   *
   * @throws {Error} If the publisher was made without `notifyRetirement`.
   */
  get retirements(): Retirements {
    if (this.#options.notifyRetirement === true) return this.#retirements;
    throw new Error(
      `Cannot tell what is retired on ${this.channel}: create the publisher with notifyRetirement`,
    );
  }

  /** The fd that becomes readable when a reliable publisher may get a slot, to be waited for by the caller's means. */
  get pollFd(): number {
    this.#use();
    return this.#waiter!.fdNumber;
  }

  /**
   * Waits until a message can be published.
   *
   * @returns false where the time ran out first, or the publisher was closed.
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
   * Publishes a copy of bytes as soon as there is a slot.
   *
   * @throws {TimeoutError} If there was none in time.
   */
  async send(message: Uint8Array, options?: WaitOptions): Promise<void> {
    if (++this.#sent % BREATH_EVERY === 0) await this.#waiter?.breathe();
    while (!this.publish(message)) {
      if (await this.wait(options)) continue;
      this.#use();
      throw new TimeoutError(
        `Cannot send on ${this.channel}: no slot was free within ${options?.timeoutMs} ms`,
      );
    }
  }

  /** Closes the publisher at once; the promise resolves when the server knows. What it published stays readable. */
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
  #use(): Attached {
    this.#control.tick();
    const attached = this.#attached ?? this.#unusable();
    this.#checkTopology(attached);
    return attached;
  }

  #unusable(): never {
    throw this.#failure ?? new ClosedError(`Cannot use the publisher on ${this.channel}: it is closed`);
  }

  #createRequest(keepId: boolean): RequestInit {
    const options = this.#options;
    const type = options.type ?? "";
    const value = {
      channelName: this.channel,
      numSlots: options.numSlots,
      slotSize: align64(options.slotBytes),
      isLocal: options.local ?? false,
      isReliable: this.reliable,
      isFixedSize: options.fixedSize ?? false,
      type: typeof type === "string" ? new TextEncoder().encode(type) : type,
      mux: options.mux ?? "",
      vchanId: options.vchanId ?? -1,
      subscriberQueueArenaSize: BigInt(options.subscriberQueueArenaBytes ?? 0),
      checksumSize: options.checksumBytes ?? 4,
      metadataSize: options.metadataBytes ?? 0,
      publisherId: keepId ? this.#attached!.publisherId : -1,
      maxPublishers: options.maxPublishers ?? 0,
      processId: BigInt(Deno.pid),
      maxOutstandingSlotLeases: options.maxOutstandingLeases ?? 1,
      notifyRetirement: options.notifyRetirement ?? false,
      forTunnel: options.tunnel ?? false,
    };
    return { request: { case: "createPublisher", value } };
  }

  #adopt(answer: Answer): boolean {
    const what = `create a publisher on ${this.channel}`;
    return openAnswer(answer, "createPublisher", what, (body, fds) => {
      const before = this.#attached;
      const goesOn = before?.publisherId === body.publisherId && before.end.ownsSlot;
      const known = goesOn ? before : null;
      using cleanup = new DisposableStack();
      try {
        const blocks = takeBlocks(this.#control, this.channel, body, null, fds, known);
        cleanup.use(blocks);
        const trigger = fds.take(body.pubPollFdIndex);
        const peers = cleanup.use(Peers.take(fds, body.subTriggerFdIndexes, body.retirementFdIndexes));
        const retirement = this.#options.notifyRetirement === true && body.retirementFdIndex >= 0
          ? cleanup.use(fds.take(body.retirementFdIndex))
          : null;
        const attached = blocks === null ? known! : this.#attach(body, blocks);
        cleanup.move();
        if (attached !== known) this.#leave();
        this.#attached = attached;
        this.#setTrigger(trigger);
        this.#retirements.replace(retirement);
        this.#setPeers(attached, peers, body.numSubUpdates & 0xffff);
        return attached === known;
      } catch (error) {
        this.#control.sendRemoval(removeRequest(this.channel, body.publisherId));
        throw error;
      }
    });
  }

  #attach(answer: AnswerBody<"createPublisher">, blocks: ControlBlocks): Attached {
    const { channelId, publisherId, vchanId } = answer;
    const { id: sessionId, userId: uid, groupId: gid } = this.#control.session;
    const { slotBytes, fixedSize = false, checksumBytes = 4, metadataBytes = 0, checksum = false } =
      this.#options;
    const { tunnel = false, activate = false, onResize } = this.#options;
    const end = new PublishingEnd({
      sessionId,
      resolvedName: this.#options.mux || this.channel,
      blocks,
      id: publisherId,
      vchanId,
      reliable: this.reliable,
      slotBytes,
      fixedSize,
      checksumBytes,
      metadataBytes,
      checksum: typeof checksum === "function" ? checksum : checksum ? crc32 : null,
      tunnel,
      maxLeases: this.#options.maxOutstandingLeases ?? 1,
      preferRetiredSlots: this.#options.preferRetiredSlots ?? false,
      notifyForcedReuse: this.#options.notifyForcedReuse ?? true,
      ...(onResize === undefined ? {} : { onResize }),
      ...(ownUid() === 0 ? { owner: { uid, gid } } : {}),
    });
    // What the reference's subscribers expect of a reliable publisher: its first message is for them to hold.
    if ((this.reliable || activate) && !tunnel) end.publishActivation();
    return { channelId, publisherId, vchanId, blocks, end };
  }

  /** Lets memory go in which the server has already given the slot to others. */
  #leave(): void {
    this.#attached?.end.leave();
    this.#attached?.blocks[Symbol.dispose]();
  }

  #setTrigger(trigger: Fd): void {
    if (this.#waiter !== null) return this.#waiter.replace(trigger);
    this.#waiter = new Waiter(this.#control, trigger, () => this.#ready(), RECHECK_MS);
  }

  #ready(): boolean {
    return this.#use().end.buffer() !== null;
  }

  #setPeers(attached: Attached, peers: Peers, seenUpdates: number): void {
    attached.end.setSubscriberTriggers(peers.triggerNumbers);
    attached.end.setRetirementPipes(peers.pipeNumbers);
    this.#peers[Symbol.dispose]();
    this.#peers = peers;
    this.#seenUpdates = seenUpdates;
    peers.ring();
    this.#wantsKinds = attached.end.wantsSubscriberKinds;
  }

  #checkTopology(attached: Attached): void {
    if (this.#wantsKinds) this.#askKinds(attached);
    const updates = attached.blocks.counters.numSubUpdates;
    if (updates !== this.#seenUpdates && !this.#refreshing) this.#refresh(attached, updates);
  }

  #refresh(attached: Attached, updates: number): void {
    const request = { request: { case: "getTriggers" as const, value: { channelName: this.channel } } };
    this.#refreshing = true; // Until it is settled, which may be at once.
    const sent = this.#control.refresh(request, (answer) => {
      this.#refreshing = false;
      if (answer !== null) this.#refreshed(attached, answer, updates);
    });
    if (!sent) this.#refreshing = false;
  }

  #refreshed(attached: Attached, answer: Answer, updates: number): void {
    if (this.#attached !== attached) return closeAll(answer.fds);
    this.#seenUpdates = updates; // Whatever came: the same question again would get the same answer.
    quietly(() =>
      openAnswer(answer, "getTriggers", `learn who subscribes to ${this.channel}`, (body, fds) => {
        const peers = Peers.take(fds, body.subTriggerFdIndexes, body.retirementFdIndexes);
        this.#setPeers(attached, peers, updates);
      })
    );
  }

  /** Shared memory does not say which subscribers are reliable. */
  #askKinds(attached: Attached): void {
    const updates = attached.blocks.counters.numSubUpdates;
    const { mux } = this.#options;
    // The slots are those of all virtual channels, and their messages may be for anybody's subscribers.
    const channelName = mux === undefined ? this.channel : "";
    const request = { request: { case: "getChannelInfo" as const, value: { channelName } } };
    this.#wantsKinds = false;
    const sent = this.#control.refresh(request, (answer) => {
      if (answer === null) return void (this.#wantsKinds = true);
      if (this.#attached !== attached) return closeAll(answer.fds);
      quietly(() =>
        openAnswer(answer, "getChannelInfo", `learn who subscribes to ${this.channel}`, ({ channels }) => {
          const concerned = channels.filter((each) =>
            mux === undefined || each.mux === mux || each.name === mux
          );
          const participants = concerned.flatMap((channel) => channel.participants);
          const unreliable = participants.filter((user) => user.isSubscriber && !user.isReliable);
          attached.end.setUnreliableSubscribers(unreliable.map((user) => user.id), updates);
        })
      );
    });
    if (!sent) this.#wantsKinds = true;
  }

  #release(failure: Error | null): void {
    this.#failure = failure;
    this.#attached?.end.close();
    this.#attached?.blocks[Symbol.dispose]();
    this.#attached = null;
    this.#peers[Symbol.dispose]();
    this.#retirements.close();
    this.#waiter?.close(failure);
  }
}

function removeRequest(channelName: string, publisherId: number): RequestInit {
  return { request: { case: "removePublisher", value: { channelName, publisherId } } };
}

function checkCount(channel: string, name: string, value: number): void {
  if (Number.isInteger(value) && value > 0 && value <= 0x7fff_ffff) return;
  throw new RangeError(
    `Cannot create a publisher on ${channel}: ${name} must be a positive integer, not ${value}`,
  );
}

function checkBytes(channel: string, name: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least && value <= 0xffff) return;
  throw new RangeError(
    `Cannot create a publisher on ${channel}: ${name} must be ${least} to 65535, not ${value}`,
  );
}
