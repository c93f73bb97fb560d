/**
 * What a client has at its server, and making all of it known again to each server that answers (specification,
 * section 3.6).
 *
 * Invariants: every publisher and subscriber that was created and not removed is in `#handles`; an id is claimed only
 * from a server that has it from its predecessor, as claiming one that the same server has taken away makes the
 * reference crash (section 9.2, 1 and 2).
 */

import { closeAll } from "../ffi/fd.ts";
import { ConnectionError, RequestError } from "./errors.ts";
import type { Answer, Exchange, RequestInit, ServerLink } from "./server_link.ts";

/** What a publisher or a subscriber is to the control plane. */
export interface Handle {
  readonly channel: string;
  /** For people: `publisher on /imu`. */
  readonly title: string;
  /**
   * What makes it known to a server, with the same request token each time: should the server die before it says that it
   * has granted one, it is found by that. `keepId`: the server knows it, by the id that it has.
   */
  createRequest(keepId: boolean): RequestInit;
  /**
   * Takes over what the answer to `createRequest` brought.
   *
   * @returns Whether it goes on with the memory and the id that it had.
   * @throws {RequestError} If the server refused.
   */
  adopt(answer: Answer): boolean;
  /** What makes the server forget it. */
  removeRequest(): RequestInit;
  /** Gives back all that it has in this process. */
  release(): void;
  /** It cannot go on: every later use throws this. */
  fail(reason: Error): void;
}

/** What came of making everything known to a server again. */
export interface Reattachment {
  /** Channels whose publishers or subscribers started anew, as the server knew nothing of them. */
  readonly recreated: ReadonlySet<string>;
  /** Channels where that failed, and why: those publishers or subscribers are of no use any more. */
  readonly failed: readonly { readonly channel: string; readonly reason: Error }[];
}

/** The handles that a server that has just answered is still to be told of, and what came of the others. */
interface Attachment extends Reattachment {
  outstanding: number;
  readonly recreated: Set<string>;
  readonly failed: { channel: string; reason: Error }[];
}

/** The publishers and subscribers of one client. */
export class Handles {
  /** Each with the value of `#memory` when a server gave it the id that it has; 0 if that means nothing any more. */
  readonly #handles = new Map<Handle, number>();
  /** Grows with every server that answers without what its predecessor knew: ids of before mean nothing to it. */
  #memory = 0;
  /** Those that the present server was asked for and has not answered. */
  readonly #asked = new Set<Handle>();
  /** Of them, those that are to be removed by the id that they were claimed by, if the server grants it. */
  readonly #leaving = new Map<Handle, RequestInit>();
  /** Removals without an answer yet: pointless once the server has lost its memory. */
  readonly #removals = new Set<Exchange>();

  /** @param attached Called when a server that answered knows everything. */
  constructor(
    private readonly link: ServerLink,
    private readonly attached: (outcome: Reattachment) => void,
  ) {}

  /** One that the server has just made. */
  add(handle: Handle): void {
    this.#handles.set(handle, this.#memory);
  }

  /** Makes the server forget a handle. Resolves when it has, or cannot be told now. */
  remove(handle: Handle): Promise<void> {
    const known = this.#handles.get(handle) === this.#memory;
    this.#handles.delete(handle);
    // If not, its id may be somebody else's by now; the one that it is to get is removed as soon as it is here.
    if (!known) return Promise.resolve();
    const request = handle.removeRequest();
    if (!this.#asked.has(handle)) return this.sendRemoval(request);
    // A server with an old copy may refuse the claim, and give the id to somebody else before it reads this.
    this.#leaving.set(handle, request);
    return Promise.resolve();
  }

  /** Makes the server forget all. */
  removeAll(): Promise<void>[] {
    return [...this.#handles.keys()].map((handle) => {
      const removed = this.remove(handle);
      handle.release();
      return removed;
    });
  }

  /** A handle that failed is not made known to servers any more. */
  forget(handle: Handle): void {
    this.#handles.delete(handle);
  }

  /** Gives back what an answer brought that came too late. */
  undo(handle: Handle, answer: Answer): void {
    try {
      handle.adopt(answer);
    } catch {
      return; // There is nothing to be undone.
    }
    this.sendRemoval(handle.removeRequest());
    handle.release();
  }

  /** Makes the server forget a user. Resolves like `remove`. */
  sendRemoval(request: RequestInit): Promise<void> {
    return new Promise((resolve) => {
      const exchange: Exchange = {
        request,
        repeat: true,
        settle: (outcome) => {
          this.#removals.delete(exchange);
          if (!(outcome instanceof Error)) closeAll(outcome.fds);
          resolve();
        },
      };
      this.#removals.add(exchange);
      this.link.exchange(exchange);
      if (!this.link.greeted) resolve();
    });
  }

  /**
   * What is to be asked of a server that has just answered, before all else.
   *
   * @param remembers Whether it has what its predecessor knew.
   */
  attach(remembers: boolean): Exchange[] {
    // A server with an old copy may know nothing of those ids, and give them away again.
    const removals = [...this.#removals].filter((removal) => this.link.withdraw(removal));
    if (!remembers) {
      this.#memory++;
      for (const removal of removals.splice(0)) {
        removal.settle(new ConnectionError("Cannot remove: it is gone"));
      }
    }
    const wanted = Array.from(
      this.#handles,
      ([handle, memory]) => [handle, memory === this.#memory] as const,
    );
    // What is made anew may get an id that is claimed: that comes first.
    wanted.sort(([, keepId], [, otherKeepsId]) => Number(otherKeepsId) - Number(keepId));
    const attachment: Attachment = { outstanding: wanted.length, recreated: new Set(), failed: [] };
    if (wanted.length === 0) this.attached(attachment);
    return [...removals, ...wanted.map(([handle, keepId]) => this.#attach(handle, keepId, attachment))];
  }

  #attach(handle: Handle, keepId: boolean, attachment: Attachment): Exchange {
    const done = () => {
      if (--attachment.outstanding === 0) this.attached(attachment);
    };
    const request = handle.createRequest(keepId);
    this.#asked.add(handle);
    const settle = (outcome: Answer | Error) => {
      const removal = this.#leaving.get(handle);
      this.#asked.delete(handle);
      this.#leaving.delete(handle);
      if (outcome instanceof Error) { // The link is gone again.
        if (removal !== undefined) this.sendRemoval(removal);
        return;
      }
      if (!this.#handles.has(handle)) {
        // A publisher that is unknown by its id gets another one.
        if (removal === undefined || idIn(request) !== idIn(outcome.message)) this.undo(handle, outcome);
        else {
          closeAll(outcome.fds);
          this.sendRemoval(removal);
        }
        return done();
      }
      try {
        if (!handle.adopt(outcome)) attachment.recreated.add(handle.channel);
        this.#handles.set(handle, this.#memory);
      } catch (error) {
        if (keepId && error instanceof RequestError) {
          this.#handles.set(handle, 0);
          return this.link.exchange(this.#attach(handle, false, attachment));
        }
        this.#handles.delete(handle);
        handle.fail(error as Error);
        attachment.failed.push({ channel: handle.channel, reason: error as Error });
      }
      done();
    };
    return { request, repeat: false, settle };
  }
}

/** The id of a user that a request or its answer names; undefined where it names none, or is a refusal. */
function idIn(message: RequestInit | Answer["message"]): number | undefined {
  const value = ("request" in message ? message.request : (message as Answer["message"]).response)?.value;
  const { publisherId, subscriberId, error } = (value ?? {}) as {
    publisherId?: number;
    subscriberId?: number;
    error?: string;
  };
  return error ? undefined : publisherId ?? subscriberId;
}
