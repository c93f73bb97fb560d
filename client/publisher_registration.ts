/** What a publisher is to the server: made known, kept up to date, and made known again. */

import { closeAll, type Fd } from "../ffi/fd.ts";
import { uid as ownUid } from "../ffi/process.ts";
import { crc32 } from "../shm/checksum.ts";
import type { ControlBlocks } from "../shm/control_blocks.ts";
import { SleepFlag } from "../shm/doorbell.ts";
import { PublishingEnd } from "../shm/publishing.ts";
import type { ChannelCounters } from "../shm/system_control_block.ts";
import { type AnswerBody, openAnswer } from "./answer.ts";
import { mappedBy, takeBlocks } from "./channel_memory.ts";
import { ChannelParts } from "./channel_parts.ts";
import { type Control, quietly } from "./control.ts";
import { ClosedError } from "./errors.ts";
import type { Handle } from "./handles.ts";
import type { Lease } from "./lease.ts";
import { Peers } from "./peers.ts";
import { createPublisherRequest, type PublisherTraits, removePublisherRequest } from "./publisher_options.ts";
import { newToken } from "./token.ts";
import { Retirements } from "./retirements.ts";
import type { Answer } from "./server_link.ts";
import { Waiter } from "./waiter.ts";

/** Looks for a slot without having been woken: a subscriber that was removed wakes nobody (section 5.13). */
const RECHECK_MS = 100;

/** What a publisher has as long as its channel's memory lives. */
export interface AttachedPublisher {
  readonly channelId: number;
  readonly publisherId: number;
  readonly vchanId: number;
  readonly type: Uint8Array;
  readonly blocks: ControlBlocks;
  readonly counters: ChannelCounters;
  readonly end: PublishingEnd;
  /** Per slot, the object that stands for its lease. */
  readonly leases: Lease[];
  /** What the server hears of its split buffers; null where they are of one piece. */
  readonly parts: ChannelParts | null;
}

/** The registration of one publisher. */
export class PublisherRegistration {
  readonly #control: Control;
  readonly #options: PublisherTraits;
  readonly #handle: Handle;
  readonly #requestToken = newToken();
  #attached: AttachedPublisher | null = null;
  #waiter: Waiter | null = null;
  #peers = Peers.none();
  /** num_sub_updates when the triggers were asked for; -1: never. */
  #seenUpdates = -1;
  #refreshing = false;
  #wantsKinds = false;
  readonly retirements = new Retirements();
  #failure: Error | null = null;
  #closing: Promise<void> | null = null;

  private constructor(control: Control, readonly channel: string, options: PublisherTraits) {
    this.#control = control;
    this.#options = options;
    this.#handle = {
      channel,
      title: `publisher on ${channel}`,
      createRequest: (keepId) =>
        createPublisherRequest(channel, options, {
          publisherId: keepId ? this.#attached!.publisherId : -1,
          requestToken: this.#requestToken,
          doorbell: control.doorbell,
          ...mappedBy(keepId && this.#attached!.end.ownsSlot ? this.#attached : null),
        }),
      adopt: (answer) => this.#adopt(answer),
      removeRequest: () => {
        // What the server hears of its memory must come before: only a publisher may say it.
        this.#attached?.end.close();
        return removePublisherRequest(channel, this.#attached?.publisherId ?? -1, this.#requestToken);
      },
      release: () => this.#release(null),
      fail: (reason) => this.#release(reason),
    };
  }

  /** Makes a publisher known to the server. */
  static async create(
    control: Control,
    channel: string,
    options: PublisherTraits,
  ): Promise<PublisherRegistration> {
    const registration = new PublisherRegistration(control, channel, options);
    await control.create(registration.#handle);
    try {
      await registration.#prepare();
    } catch (error) {
      registration.close();
      throw error;
    }
    return registration;
  }

  /** Waits until the server has said where the buffers are that others have made, if it must. */
  async #prepare(): Promise<void> {
    for (let { end, parts } = this.attached; !end.prepared; { end, parts } = this.attached) {
      if (end.prepare()) this.#activate(end);
      else await parts?.answer();
    }
  }

  /** The server has said where buffers are. */
  #answered(): void {
    const end = this.#attached?.end;
    if (end?.prepared === false) quietly(() => end.prepare() && this.#activate(end));
    this.#waiter?.look();
  }

  /** What it has now, without a look at what has changed. Throws where it was closed. */
  get attached(): AttachedPublisher {
    return this.#attached ?? this.#unusable();
  }

  /** What announces that it may get a slot. */
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
  use(): AttachedPublisher {
    this.#control.tick();
    const attached = this.#attached;
    return attached !== null && this.#upToDate(attached) ? attached : this.#catchUp();
  }

  #unusable(): never {
    throw this.#failure ?? new ClosedError(`Cannot use the publisher on ${this.channel}: it is closed`);
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
        const trigger = body.unchanged ? null : fds.take(body.pubPollFdIndex);
        const { subTriggerFdIndexes, subTriggerSleepers, retirementFdIndexes } = body;
        const peers = cleanup.use(
          Peers.take(fds, subTriggerFdIndexes, subTriggerSleepers, retirementFdIndexes),
        );
        const retirement = this.#options.notifyRetirement === true && body.retirementFdIndex >= 0
          ? cleanup.use(fds.take(body.retirementFdIndex))
          : null;
        const attached = blocks === null ? known! : this.#attach(body, blocks);
        cleanup.move();
        if (attached !== known) this.#leave();
        this.#attached = attached;
        if (trigger === null) this.#waiter!.look();
        else this.#setTrigger(trigger, attached);
        this.retirements.replace(retirement);
        this.#setPeers(attached, peers, body.numSubUpdates & 0xffff);
        if (attached === known) attached.parts?.registerAgain();
        return attached === known;
      } catch (error) {
        this.#control.sendRemoval(removePublisherRequest(this.channel, body.publisherId, this.#requestToken));
        throw error;
      }
    });
  }

  #attach(answer: AnswerBody<"createPublisher">, blocks: ControlBlocks): AttachedPublisher {
    const { channelId, publisherId, vchanId } = answer;
    const { id: sessionId, userId: uid, groupId: gid } = this.#control.session;
    const { slotBytes, fixedSize = false, checksumBytes = 4, metadataBytes = 0, checksum = false } =
      this.#options;
    const { reliable = false, tunnel = false, onResize, splitBuffers = false } = this.#options;
    const resolvedName = this.#options.mux || this.channel;
    using cleanup = new DisposableStack();
    const parts = splitBuffers === false
      ? null
      : cleanup.use(new ChannelParts(this.#control, resolvedName, blocks.counters, () => this.#answered()));
    const allocator = typeof splitBuffers === "object" ? splitBuffers : null;
    const end = new PublishingEnd({
      sessionId,
      resolvedName,
      blocks,
      id: publisherId,
      vchanId,
      reliable,
      slotBytes,
      fixedSize,
      checksumBytes,
      metadataBytes,
      checksum: typeof checksum === "function" ? checksum : checksum ? crc32 : null,
      tunnel,
      maxLeases: this.#options.maxOutstandingLeases ?? 1,
      preferRetiredSlots: this.#options.preferRetiredSlots ?? false,
      notifyForcedReuse: this.#options.notifyForcedReuse ?? true,
      autoFlush: this.#options.autoFlush ?? true,
      ...(onResize === undefined ? {} : { onResize }),
      split: parts === null ? null : { registry: parts, allocator },
      ...(ownUid() === 0 ? { owner: { uid, gid } } : {}),
    });
    cleanup.move();
    if (end.prepared) this.#activate(end);
    return {
      channelId,
      publisherId,
      vchanId,
      type: answer.type,
      blocks,
      counters: blocks.counters,
      end,
      parts,
      leases: [],
    };
  }

  /** What the reference's subscribers expect of a reliable publisher: its first message is for them to hold. */
  #activate(end: PublishingEnd): void {
    const { reliable = false, tunnel = false, activate = false } = this.#options;
    if ((reliable || activate) && !tunnel) end.publishActivation();
  }

  /** Lets memory go in which the server has already given the slot to others. */
  #leave(): void {
    this.#attached?.end.leave();
    this.#attached?.parts?.[Symbol.dispose]();
    this.#attached?.blocks[Symbol.dispose]();
  }

  #setTrigger(trigger: Fd, { blocks, publisherId }: AttachedPublisher): void {
    const flag = new SleepFlag(blocks, "publishers", publisherId);
    if (this.#waiter !== null) return this.#waiter.replace(trigger, flag);
    const condition = { holds: () => this.#ready(), mayHold: () => this.#attached?.end.hasVacancy ?? false };
    this.#waiter = new Waiter(this.#control, trigger, flag, condition, RECHECK_MS);
  }

  #ready(): boolean {
    return this.use().end.buffer() !== null;
  }

  #setPeers(attached: AttachedPublisher, peers: Peers, seenUpdates: number): void {
    attached.end.setSubscriberTriggers(peers.triggers);
    // Who says when it sleeps is of ours.
    attached.end.subscriberKinds.trust(peers.triggers.map(({ sleeperId }) => sleeperId), seenUpdates);
    attached.end.setRetirementPipes(peers.pipeNumbers);
    this.#peers[Symbol.dispose]();
    this.#peers = peers;
    this.#seenUpdates = seenUpdates;
    peers.ring();
    this.#wantsKinds = attached.end.subscriberKinds.wanted;
  }

  /** Sees after a publication whether somebody has come who was not told. */
  checkTopology(): void {
    const attached = this.#attached;
    if (attached !== null && !this.#upToDate(attached)) this.#catchUp();
  }

  #upToDate({ counters }: AttachedPublisher): boolean {
    return counters.numSubUpdates === this.#seenUpdates && !this.#wantsKinds;
  }

  #catchUp(): AttachedPublisher {
    const { attached } = this, updates = attached.counters.numSubUpdates;
    if (this.#wantsKinds) this.#askKinds(attached);
    if (updates !== this.#seenUpdates && !this.#refreshing) this.#refresh(attached, updates);
    return attached;
  }

  #refresh(attached: AttachedPublisher, updates: number): void {
    const value = { channelName: this.channel, doorbell: this.#control.doorbell };
    const request = { request: { case: "getTriggers" as const, value } };
    this.#refreshing = true; // Until it is settled, which may be at once.
    const sent = this.#control.refresh(request, (answer) => {
      this.#refreshing = false;
      if (answer !== null) this.#refreshed(attached, answer, updates);
    });
    if (!sent) this.#refreshing = false;
  }

  #refreshed(attached: AttachedPublisher, answer: Answer, updates: number): void {
    if (this.#attached !== attached) return closeAll(answer.fds);
    this.#seenUpdates = updates; // Whatever came: the same question again would get the same answer.
    quietly(() =>
      openAnswer(answer, "getTriggers", `learn who subscribes to ${this.channel}`, (body, fds) => {
        const { subTriggerFdIndexes, subTriggerSleepers, retirementFdIndexes } = body;
        const peers = Peers.take(fds, subTriggerFdIndexes, subTriggerSleepers, retirementFdIndexes);
        this.#setPeers(attached, peers, updates);
        this.#waiter?.look();
      })
    );
  }

  /** Shared memory does not say which subscribers are reliable. */
  #askKinds(attached: AttachedPublisher): void {
    const updates = attached.counters.numSubUpdates;
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
          attached.end.subscriberKinds.setUnreliable(unreliable.map((user) => user.id), updates);
          this.#waiter?.look();
        })
      );
    });
    if (!sent) this.#wantsKinds = true;
  }

  #release(failure: Error | null): void {
    this.#failure = failure;
    this.#attached?.end.close();
    this.#attached?.parts?.[Symbol.dispose]();
    this.#attached?.blocks[Symbol.dispose]();
    this.#attached = null;
    this.#peers[Symbol.dispose]();
    this.retirements.close();
    this.#waiter?.close(failure);
  }
}
