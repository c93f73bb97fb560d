/** What clients of a simulation have: publishers and subscribers without messages. */

import { closeAll, type Fd } from "../../ffi/fd.ts";
import { openAnswer } from "../../client/answer.ts";
import type { Handle } from "../../client/handles.ts";
import type { Answer, RequestInit } from "../../client/server_link.ts";
import type { OpenFile, VirtualFd } from "./files.ts";

/** What a client wants to have. */
export interface Wish {
  readonly kind: "publisher" | "subscriber";
  readonly channelName: string;
  readonly mux: string;
  readonly reliable: boolean;
  readonly notifyRetirement: boolean;
  readonly queue: boolean;
}

/** Told when the server has answered. */
export interface HandleEvents {
  /** @param kept Whether it has the id and the memory that it had; null the first time. */
  adopted(handle: SimulatedHandle, kept: boolean | null): void;
  failed(handle: SimulatedHandle, reason: Error): void;
}

const NUM_SLOTS = 16;
const QUEUE_ARENA_BYTES = 4096n;

/** A publisher or subscriber as its client sees it. */
export class SimulatedHandle implements Handle {
  id = -1;
  /** Of the server that has answered last; 0: none has. */
  incarnation = 0;
  #fds: Fd[] = [];
  removed = false;
  failed = false;

  /** @param requestToken Of all requests to create it; 0 for a client that has none. */
  constructor(
    readonly wish: Wish,
    readonly pid: number,
    readonly requestToken: bigint,
    private readonly events: HandleEvents,
  ) {}

  get channel(): string {
    return this.wish.channelName;
  }

  get title(): string {
    return `${this.wish.kind} on ${this.wish.channelName}`;
  }

  /** The files that the server gave it: control blocks, trigger, and what it waits for. */
  get files(): readonly OpenFile[] {
    return this.#fds.map((fd) => (fd as VirtualFd).file);
  }

  /** How many descriptors it holds. */
  get numFds(): number {
    return this.#fds.length;
  }

  createRequest(keepId: boolean): RequestInit {
    const { kind, channelName, mux, reliable, notifyRetirement, queue } = this.wish;
    const { requestToken } = this, id = keepId ? this.id : -1, processId = BigInt(this.pid);
    const common = { channelName, mux, vchanId: -1, isReliable: reliable, processId, requestToken };
    if (kind === "subscriber") {
      const value = { ...common, subscriberId: id, maxActiveMessages: 1, subscriberQueueSize: queue ? 4 : 0 };
      return { request: { case: "createSubscriber", value } };
    }
    const value = {
      ...common,
      publisherId: id,
      numSlots: NUM_SLOTS,
      slotSize: 64,
      subscriberQueueArenaSize: mux === "" ? QUEUE_ARENA_BYTES : 0n,
      notifyRetirement,
      maxOutstandingSlotLeases: 1,
    };
    return { request: { case: "createPublisher", value } };
  }

  adopt(answer: Answer): boolean {
    const before = this.#fds.length > 0 ? { id: this.id, files: this.files } : null;
    const fds = this.wish.kind === "publisher" ? this.#openPublisher(answer) : this.#openSubscriber(answer);
    closeAll(this.#fds);
    this.#fds = fds;
    const kept = before && before.id === this.id && this.#hasSameWakeUps(before.files);
    this.events.adopted(this, kept);
    return kept ?? false;
  }

  #openPublisher(answer: Answer): Fd[] {
    return openAnswer(answer, "createPublisher", "publish", (body, fds) => {
      this.id = body.publisherId ?? -1;
      const { ccbFdIndex, bcbFdIndex, pubTriggerFdIndex, pubPollFdIndex } = body;
      return [ccbFdIndex, bcbFdIndex, pubTriggerFdIndex, pubPollFdIndex].map((index) => fds.take(index));
    });
  }

  #openSubscriber(answer: Answer): Fd[] {
    return openAnswer(answer, "createSubscriber", "subscribe", (body, fds) => {
      this.id = body.subscriberId ?? -1;
      const { ccbFdIndex, bcbFdIndex, triggerFdIndex, pollFdIndex } = body;
      return [ccbFdIndex, bcbFdIndex, triggerFdIndex, pollFdIndex].map((index) => fds.take(index));
    });
  }

  /** A placeholder of a subscriber may have got memory meanwhile; what it waits for never changes. */
  #hasSameWakeUps(before: readonly OpenFile[]): boolean {
    const after = this.files, from = this.wish.kind === "subscriber" ? 2 : 0;
    return before.every((file, i) => i < from || file === after[i]);
  }

  removeRequest(): RequestInit {
    this.removed = true;
    const { requestToken, wish: { channelName } } = this;
    return this.wish.kind === "publisher"
      ? { request: { case: "removePublisher", value: { channelName, publisherId: this.id, requestToken } } }
      : {
        request: { case: "removeSubscriber", value: { channelName, subscriberId: this.id, requestToken } },
      };
  }

  release(): void {
    closeAll(this.#fds.splice(0));
  }

  fail(reason: Error): void {
    this.failed = true;
    this.events.failed(this, reason);
    this.release();
  }
}
