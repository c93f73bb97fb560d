/** What a subscriber is to the server: made known, kept up to date, and made known again. */

import { closeAll, type Fd } from "../ffi/fd.ts";
import type { ControlBlocks } from "../shm/control_blocks.ts";
import { SleepFlag } from "../shm/doorbell.ts";
import { ReadingEnd } from "../shm/reading.ts";
import type { ChannelCounters } from "../shm/system_control_block.ts";
import { type AnswerBody, openAnswer } from "./answer.ts";
import { mappedBy, takeBlocks } from "./channel_memory.ts";
import { ChannelParts } from "./channel_parts.ts";
import { bytesCodec, type Codec } from "./codec.ts";
import { type Control, quietly } from "./control.ts";
import { ClosedError } from "./errors.ts";
import type { Handle } from "./handles.ts";
import type { Message } from "./message.ts";
import { Peers } from "./peers.ts";
import { newToken } from "./token.ts";
import type { Answer, RequestInit } from "./server_link.ts";
import {
  createSubscriberRequest,
  removeSubscriberRequest,
  type SubscriberOptions,
} from "./subscriber_options.ts";
import { VirtualChannelNames } from "./virtual_channels.ts";
import { Waiter } from "./waiter.ts";

/** What a subscriber has as long as its channel's memory lives. */
export interface AttachedSubscriber<Value> {
  readonly channelId: number;
  readonly subscriberId: number;
  readonly vchanId: number;
  readonly blocks: ControlBlocks;
  readonly counters: ChannelCounters;
  /** null: no publisher has been there yet, and the channel has no memory. */
  readonly end: ReadingEnd | null;
  /** What the server says of its split buffers; null where they are of one piece. */
  readonly parts: ChannelParts | null;
  readonly type: Uint8Array;
  readonly checksumBytes: number;
  readonly metadataBytes: number;
  /** Places in its queue; 0 where it has none. */
  readonly queueSize: number;
  /** Per slot, the object that stands for its message. */
  readonly messages: Message<Value>[];
  readonly codec: Codec<Value>;
}

/** The registration of one subscriber. */
export class SubscriberRegistration<Value> {
  readonly #control: Control;
  readonly #options: SubscriberOptions<Value>;
  readonly #handle: Handle;
  readonly #requestToken = newToken();
  #attached: AttachedSubscriber<Value> | null = null;
  /** Memory of a server that is gone, with messages that the user still holds. */
  readonly #outdated = new Set<AttachedSubscriber<Value>>();
  #waiter: Waiter | null = null;
  #peers = Peers.none();
  /** num_pub_updates when the triggers were asked for; -1: never. */
  #seenUpdates = -1;
  #refreshing = false;
  /** Names of the virtual channels, where it reads a multiplexer. */
  readonly virtualChannels: VirtualChannelNames;
  #failure: Error | null = null;
  #closing: Promise<void> | null = null;

  private constructor(control: Control, readonly channel: string, options: SubscriberOptions<Value>) {
    this.#control = control;
    this.#options = options;
    this.virtualChannels = new VirtualChannelNames(control, channel, options.mux !== undefined);
    this.#handle = {
      channel,
      title: `subscriber to ${channel}`,
      createRequest: (keepId) => this.#createRequest(keepId),
      adopt: (answer) => this.#adopt(answer),
      removeRequest: () =>
        removeSubscriberRequest(channel, this.#attached?.subscriberId ?? -1, this.#requestToken),
      release: () => this.#release(null),
      fail: (reason) => this.#release(reason),
    };
  }

  /** Makes a subscriber known to the server. */
  static async create<Value>(
    control: Control,
    channel: string,
    options: SubscriberOptions<Value>,
  ): Promise<SubscriberRegistration<Value>> {
    const registration = new SubscriberRegistration<Value>(control, channel, options);
    await control.create(registration.#handle);
    return registration;
  }

  /** Whether it was closed, or is being closed. */
  get closed(): boolean {
    return this.#closing !== null;
  }

  /** What announces that there may be messages. */
  get waiter(): Waiter {
    this.use();
    return this.#waiter!;
  }

  /** For who sleeps by means of its own and has found nothing: see `Waiter.letGo`. */
  letGoTrigger(): boolean {
    return this.#waiter?.letGo() ?? false;
  }

  /** Gives the event loop a turn. */
  async breathe(): Promise<void> {
    if (this.#attached !== null) await this.#waiter?.breathe();
  }

  /** To be called before each use: sees what the server has sent, and what has changed. */
  use(): AttachedSubscriber<Value> {
    this.#control.tick();
    const attached = this.#attached;
    if (attached !== null && attached.counters.numPubUpdates === this.#seenUpdates) return attached;
    return this.#catchUp();
  }

  #catchUp(): AttachedSubscriber<Value> {
    const attached = this.#attached;
    if (attached === null) {
      throw this.#failure ?? new ClosedError(`Cannot use the subscriber to ${this.channel}: it is closed`);
    }
    if (!this.#refreshing) this.#refresh(attached, attached.counters.numPubUpdates);
    return attached;
  }

  /** Makes the server forget it, and lets everything go at once. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  #close(): Promise<void> {
    if (this.#failure !== null) return Promise.resolve();
    const removed = this.#control.remove(this.#handle);
    this.#release(null);
    return removed;
  }

  #createRequest(keepId: boolean): RequestInit {
    return createSubscriberRequest(this.channel, this.#options, {
      subscriberId: keepId ? this.#attached!.subscriberId : -1,
      requestToken: this.#requestToken,
      doorbell: this.#control.doorbell,
      ...mappedBy(keepId ? this.#attached : null),
    });
  }

  #adopt(answer: Answer): boolean {
    const what = `subscribe to ${this.channel}`;
    return openAnswer(answer, "createSubscriber", what, (body, fds) => {
      const known = this.#attached?.subscriberId === body.subscriberId ? this.#attached : null;
      using cleanup = new DisposableStack();
      try {
        const blocks = takeBlocks(this.#control, this.channel, body, body.numSlots, fds, known);
        cleanup.use(blocks);
        const trigger = body.unchanged ? null : fds.take(body.pollFdIndex);
        const { reliablePubTriggerFdIndexes, reliablePubTriggerSleepers, retirementFdIndexes } = body;
        const peers = cleanup.use(
          Peers.take(fds, reliablePubTriggerFdIndexes, reliablePubTriggerSleepers, retirementFdIndexes),
        );
        const attached = blocks === null ? known! : this.#attach(body, blocks);
        cleanup.move();
        if (attached !== known) this.#leave();
        this.#attached = attached;
        if (trigger === null) this.#waiter!.look();
        else this.#setTrigger(trigger, attached);
        attached.end?.setOwnTrigger(this.#waiter!.fdNumber);
        this.#setPeers(attached, peers, body.numPubUpdates & 0xffff);
        return attached === known;
      } catch (error) {
        this.#control.sendRemoval(
          removeSubscriberRequest(this.channel, body.subscriberId, this.#requestToken),
        );
        throw error;
      }
    });
  }

  #attach(body: AnswerBody<"createSubscriber">, blocks: ControlBlocks): AttachedSubscriber<Value> {
    const { channelId, subscriberId, vchanId } = body;
    const checksumBytes = body.checksumSize > 0 ? body.checksumSize : 4;
    const metadataBytes = Math.max(0, body.metadataSize), queueSize = Math.max(0, body.subscriberQueueSize);
    const { checksum, codec = bytesCodec() as Codec<unknown> as Codec<Value> } = this.#options;
    const resolvedName = this.#options.mux || this.channel;
    using cleanup = new DisposableStack();
    const parts = !body.useSplitBuffers
      ? null
      : cleanup.use(new ChannelParts(this.#control, resolvedName, blocks.counters, () => this.#answered()));
    const end = blocks.numSlots === 0 ? null : new ReadingEnd({
      sessionId: this.#control.session.id,
      resolvedName,
      blocks,
      id: subscriberId,
      vchanId,
      reliable: this.#options.reliable ?? false,
      maxActiveMessages: this.#options.maxActiveMessages ?? 1,
      checksumBytes,
      metadataBytes,
      checksum: typeof checksum === "function" ? checksum : null,
      passActivation: this.#options.passActivation ?? false,
      detectDrops: this.#options.detectDrops ?? true,
      // A queue of the channel's own size is no limit: what it has no place for is read all the same.
      backlog: (this.#options.queueSize ?? 0) > 0 ? queueSize : 0,
      writable: this.#options.writable ?? false,
      split: parts === null ? null : { registry: parts, allocator: this.#options.splitBuffers ?? null },
    });
    cleanup.move();
    return {
      channelId,
      subscriberId,
      vchanId,
      blocks,
      counters: blocks.counters,
      end,
      parts,
      type: body.type,
      checksumBytes,
      metadataBytes,
      queueSize,
      messages: [],
      codec,
    };
  }

  /** The server has said where buffers are. */
  #answered(): void {
    this.#attached?.end?.lookForBuffers();
    this.#waiter?.look();
  }

  /** Lets the channel's memory go, as soon as no message of it is held. */
  #leave(): void {
    const attached = this.#attached;
    if (attached === null) return;
    this.#outdated.add(attached);
    if (attached.end === null) this.#dispose(attached);
    else attached.end.leave(() => this.#dispose(attached));
  }

  #dispose(attached: AttachedSubscriber<Value>): void {
    this.#outdated.delete(attached);
    attached.end?.[Symbol.dispose]();
    attached.parts?.[Symbol.dispose]();
    attached.blocks[Symbol.dispose]();
  }

  #setTrigger(trigger: Fd, { blocks, subscriberId }: AttachedSubscriber<Value>): void {
    const flag = new SleepFlag(blocks, "subscribers", subscriberId);
    if (this.#waiter !== null) return this.#waiter.replace(trigger, flag);
    this.#waiter = new Waiter(this.#control, trigger, flag, {
      holds: () => this.#ready(),
      mayHold: () => this.#attached?.end?.hasNews ?? false,
    });
  }

  #ready(): boolean {
    const { end } = this.use();
    return end !== null && end.mayHaveUnread;
  }

  #setPeers(attached: AttachedSubscriber<Value>, peers: Peers, seenUpdates: number): void {
    attached.end?.setPublisherTriggers(peers.triggers);
    attached.end?.setRetirementPipes(peers.pipeNumbers);
    this.#peers[Symbol.dispose]();
    this.#peers = peers;
    this.#seenUpdates = seenUpdates;
    this.virtualChannels.expire();
    peers.ring();
  }

  #refresh(attached: AttachedSubscriber<Value>, updates: number): void {
    const request: RequestInit = attached.end === null ? this.#createRequest(true) : {
      request: {
        case: "getTriggers",
        value: { channelName: this.channel, doorbell: this.#control.doorbell },
      },
    };
    this.#refreshing = true; // Until it is settled, which may be at once.
    const sent = this.#control.refresh(request, (answer) => {
      this.#refreshing = false;
      if (answer !== null) this.#refreshed(attached, answer, updates);
    });
    if (!sent) this.#refreshing = false;
  }

  #refreshed(attached: AttachedSubscriber<Value>, answer: Answer, updates: number): void {
    if (this.#attached !== attached) return closeAll(answer.fds);
    if (attached.end === null) return this.#fillIn(answer);
    this.#seenUpdates = updates; // Whatever came: the same question again would get the same answer.
    quietly(() =>
      openAnswer(answer, "getTriggers", `learn who publishes on ${this.channel}`, (body, fds) => {
        const { reliablePubTriggerFdIndexes, reliablePubTriggerSleepers, retirementFdIndexes } = body;
        const peers = Peers.take(
          fds,
          reliablePubTriggerFdIndexes,
          reliablePubTriggerSleepers,
          retirementFdIndexes,
        );
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
