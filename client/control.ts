/**
 * A client's control plane: who it is to the server, what it has there, and getting all of it back when the server
 * comes back (specification, section 3.6).
 *
 * Invariants: every publisher and subscriber that was created and not closed is in `#handles`, and is made known
 * to each server that answers; an id is claimed only from a server that has it from its predecessor, as claiming
 * one that the same server has taken away makes the reference crash (section 9.2, 1 and 2).
 */

import { getLogger } from "@logtape/logtape";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { operatingSystem, type System } from "../ffi/system.ts";
import { SystemControlBlock } from "../shm/system_control_block.ts";
import { ProtocolError } from "../wire/connection.ts";
import { AnswerFds } from "./answer.ts";
import { ClosedError, ConnectionError, RequestError, TimeoutError } from "./errors.ts";
import { type Answer, type Exchange, type Greeting, type RequestInit, ServerLink } from "./server_link.ts";

const log = getLogger(["subspace", "client"]);

/** Hot calls between two looks at the socket while something is under way; and else, at the clock. */
const BUSY_CALLS = 8;
const IDLE_CALLS = 64;
/** Between two looks at the socket while nothing is under way: each takes as long as reading several messages. */
const LOOK_EVERY_MS = 1;

/** How long closing waits for the server to hear of it. */
const CLOSE_MS_MAX = 1000;

/** What a publisher or a subscriber is to the control plane. */
export interface Handle {
  readonly channel: string;
  /** For people: `publisher on /imu`. */
  readonly title: string;
  /** What makes it known to a server. `keepId`: the server knows it, by the id that it has. */
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

/** The connection to the server was lost, or is back. */
export type ConnectionChange =
  | { readonly state: "lost"; readonly reason: Error }
  | {
    readonly state: "attached";
    /** Channels whose publishers or subscribers started anew, as the server knew nothing of them. */
    readonly recreated: readonly string[];
    /** Channels where that failed, and why: those publishers or subscribers are of no use any more. */
    readonly failed: readonly { readonly channel: string; readonly reason: Error }[];
  };

/** How a client behaves: see `ConnectOptions`. */
export interface ControlOptions {
  readonly socket: string;
  readonly name: string;
  readonly requestTimeoutMs: number;
  readonly doorbell: boolean;
  readonly onConnectionChange: (change: ConnectionChange) => void;
  /** The machine's sockets and clock. Default: those of this one. */
  readonly system?: System;
}

/** Who runs the server's data: what clients name message buffers after, and give them to. */
export interface Session {
  readonly id: bigint;
  readonly userId: number;
  readonly groupId: number;
  readonly scb: SystemControlBlock;
  /** Whether buffers may be registered although users have left: see `ChannelParts`. */
  readonly registersAlways: boolean;
}

/** The handles that a server that has just answered is still to be told of, and what came of the others. */
interface Attachment {
  outstanding: number;
  readonly recreated: Set<string>;
  readonly failed: { channel: string; reason: Error }[];
}

/** The control plane of one client. */
export class Control {
  readonly #link: ServerLink;
  readonly #options: ControlOptions;
  readonly #system: System;
  /** Each with the value of `#memory` when a server gave it the id that it has; 0 if that means nothing any more. */
  readonly #handles = new Map<Handle, number>();
  /** Grows with every server that answers without what its predecessor knew: ids of before mean nothing to it. */
  #memory = 0;
  /** Removals without an answer yet: pointless once the server has lost its memory. */
  readonly #removals = new Set<Exchange>();
  #session: Session | null = null;
  /** Of servers before: what publishers and subscribers look at until they have new memory. */
  #formerScbs = new DisposableStack();
  #serverPid = 0;
  #connected = false;
  #reattachments = 0;
  #onProgress: ((failure: Error | null) => void) | null = null;
  #credit = IDLE_CALLS;
  #lookedAt = 0;
  #closed = false;

  constructor(options: ControlOptions) {
    this.#options = options;
    this.#system = options.system ?? operatingSystem;
    this.#link = new ServerLink(options.socket, options.name, this.#system, {
      greeted: (greeting) => this.#greeted(greeting),
      lost: (reason) => this.#lost(reason),
    });
  }

  /** Whether the server knows all that it is to know. */
  get connected(): boolean {
    return this.#connected;
  }

  /** How many times everything was made known to a server again. */
  get reattachments(): number {
    return this.#reattachments;
  }

  /** Whether its publishers and subscribers use doorbells. */
  get doorbell(): boolean {
    return this.#options.doorbell;
  }

  /** The session of the server that answered last. */
  get session(): Session {
    if (this.#session === null) throw new ConnectionError("Cannot go on: no server has answered yet");
    return this.#session;
  }

  /** The socket to wait for besides one's own fds; null while there is none, and then not long. */
  get socket(): Fd | null {
    return this.#link.socket;
  }

  /** Connects, and waits for the server so long at most. */
  async start(waitMs: number): Promise<void> {
    const { socket, requestTimeoutMs } = this.#options;
    try {
      await new Promise<void>((resolve, reject) => {
        const endPatience = this.#system.after(waitMs || requestTimeoutMs, () => {
          const why = this.#link.failure?.message ?? "it does not answer";
          reject(new TimeoutError(`Cannot connect to the server at ${socket} in time: ${why}`));
        });
        this.#onProgress = (failure) => {
          if (failure !== null && waitMs > 0) return;
          endPatience();
          if (failure === null) resolve();
          else {
            const message = `${failure.message}; does a server run there?`;
            reject(new ConnectionError(message, { cause: failure }));
          }
        };
        this.#link.pump();
      });
    } catch (error) {
      this.abort();
      throw error;
    } finally {
      this.#onProgress = null;
    }
  }

  /** Takes what the server has sent, without waiting. */
  pump(): void {
    this.#link.pump();
  }

  /** To be called by every hot operation: looks at the socket now and then. */
  tick(): void {
    if (--this.#credit <= 0) this.#look();
  }

  #look(): void {
    const { busy } = this.#link, now = this.#system.monotonicMs();
    this.#credit = busy ? BUSY_CALLS : IDLE_CALLS;
    if (!busy && now - this.#lookedAt < LOOK_EVERY_MS) return;
    this.#lookedAt = now;
    this.#link.pump();
  }

  /**
   * Asks the server for something.
   *
   * @param accept Runs at once when the answer is here, and owns its fds.
   * @param undo Gets an answer that comes too late.
   */
  ask<Result>(
    what: string,
    request: RequestInit,
    accept: (answer: Answer) => Result,
    undo: (answer: Answer) => void = (answer) => closeAll(answer.fds),
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new ClosedError(`Cannot ${what}: the client is closed`);
      let late = false;
      const exchange: Exchange = {
        request,
        repeat: true,
        settle: (outcome) => {
          cancelTimeout();
          if (outcome instanceof Error) return reject(outcome);
          if (late) return undo(outcome);
          try {
            resolve(accept(outcome));
          } catch (error) {
            reject(error);
          }
        },
      };
      const { socket, requestTimeoutMs } = this.#options;
      const cancelTimeout = this.#system.after(requestTimeoutMs, () => {
        late = true;
        this.#link.withdraw(exchange);
        const why = this.#link.failure === null ? "" : ` (${this.#link.failure.message})`;
        reject(
          new TimeoutError(`Cannot ${what}: no answer from ${socket} within ${requestTimeoutMs} ms${why}`),
        );
      });
      this.#link.exchange(exchange);
    });
  }

  /** Makes a handle known to the server. */
  create(handle: Handle): Promise<void> {
    return this.ask(
      `create a ${handle.title}`,
      handle.createRequest(false),
      (answer) => {
        if (this.#closed) {
          this.#undo(handle, answer);
          throw new ClosedError(`Cannot create a ${handle.title}: the client was closed`);
        }
        handle.adopt(answer);
        this.#handles.set(handle, this.#memory);
      },
      (answer) => this.#undo(handle, answer),
    );
  }

  #undo(handle: Handle, answer: Answer): void {
    try {
      handle.adopt(answer);
    } catch {
      return; // There is nothing to be undone.
    }
    this.sendRemoval(handle.removeRequest());
    handle.release();
  }

  /**
   * Asks for what changed, unless the server is away: it will be told everything, and tell everything, anyway.
   *
   * @param settle Gets null where there is no answer.
   * @returns Whether it was sent.
   */
  refresh(request: RequestInit, settle: (answer: Answer | null) => void): boolean {
    if (!this.#connected) return false;
    this.#credit = 0;
    this.#link.exchange({
      request,
      repeat: false,
      settle: (outcome) => settle(outcome instanceof Error ? null : outcome),
    });
    return true;
  }

  /** Tells the server something that nobody waits for. */
  tell(exchange: Exchange): void {
    this.#credit = 0;
    this.#link.exchange(exchange);
  }

  /** Makes the server forget a handle. Resolves when it has, or cannot be told now. */
  remove(handle: Handle): Promise<void> {
    const known = this.#handles.get(handle) === this.#memory;
    this.#handles.delete(handle);
    // If not, its id may be somebody else's by now; the one that it is to get is removed as soon as it is here.
    if (!known) return Promise.resolve();
    return this.sendRemoval(handle.removeRequest());
  }

  /** A handle that failed is not made known to servers any more. */
  forget(handle: Handle): void {
    this.#handles.delete(handle);
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
      this.#link.exchange(exchange);
      if (!this.#connected) resolve();
    });
  }

  #greeted({ answer, serverPid }: Greeting): Exchange[] {
    const before = this.#session;
    this.#session = openSession(answer, before);
    if (before !== null && before.scb !== this.#session.scb) this.#formerScbs.use(before.scb);
    // A server that is still the same process has hung up on us, and forgotten what we had. (One inside this process
    // may have been started anew.)
    const sameServer = serverPid !== 0 && serverPid === this.#serverPid && serverPid !== this.#system.pid;
    const remembers = before?.scb === this.#session.scb && before.id === this.#session.id && !sameServer;
    this.#serverPid = serverPid;
    // Before all else: a server with an old copy may know nothing of those ids, and give them away again.
    const removals = [...this.#removals].filter((removal) => this.#link.withdraw(removal));
    if (!remembers) {
      this.#memory++;
      for (const removal of removals.splice(0)) {
        removal.settle(new ConnectionError("Cannot remove: it is gone"));
      }
    }
    const attachment: Attachment = { outstanding: this.#handles.size, recreated: new Set(), failed: [] };
    if (attachment.outstanding === 0) this.#attached(attachment, before !== null);
    const attach = ([handle, memory]: [Handle, number]) =>
      this.#attach(handle, memory === this.#memory, attachment);
    return [...removals, ...Array.from(this.#handles, attach)];
  }

  #attach(handle: Handle, keepId: boolean, attachment: Attachment): Exchange {
    const done = () => {
      if (--attachment.outstanding === 0) this.#attached(attachment, true);
    };
    const request = handle.createRequest(keepId);
    const settle = (outcome: Answer | Error) => {
      if (outcome instanceof Error) return; // The link is gone again.
      if (!this.#handles.has(handle)) {
        // Its removal names the id that was asked for. A publisher that is unknown by it gets another one.
        if (keepId && idIn(request) === idIn(outcome.message)) closeAll(outcome.fds);
        else this.#undo(handle, outcome);
        return done();
      }
      try {
        if (!handle.adopt(outcome)) attachment.recreated.add(handle.channel);
        this.#handles.set(handle, this.#memory);
      } catch (error) {
        if (keepId && error instanceof RequestError) {
          this.#handles.set(handle, 0);
          return this.#link.exchange(this.#attach(handle, false, attachment));
        }
        this.#handles.delete(handle);
        handle.fail(error as Error);
        attachment.failed.push({ channel: handle.channel, reason: error as Error });
      }
      done();
    };
    return { request, repeat: false, settle };
  }

  #attached({ recreated, failed }: Attachment, again: boolean): void {
    this.#connected = true;
    this.#formerScbs.dispose();
    this.#formerScbs = new DisposableStack();
    this.#onProgress?.(null);
    if (!again) return;
    this.#reattachments++;
    const { socket } = this.#options;
    log.info("Attached to the server at {socket} again", { socket });
    if (recreated.size > 0) {
      log.warn("The server had lost {channels}: started anew", { channels: [...recreated] });
    }
    for (const { channel, reason } of failed) log.error("Lost {channel}: {reason}", { channel, reason });
    this.#report({ state: "attached", recreated: [...recreated], failed });
  }

  #lost(reason: Error): void {
    this.#onProgress?.(reason);
    if (!this.#connected) return;
    this.#connected = false;
    log.warn("Lost the server at {socket}: {reason}", {
      socket: this.#options.socket,
      reason: reason.message,
    });
    this.#report({ state: "lost", reason });
  }

  /** A user's callback must not stop the re-attachment. */
  #report(change: ConnectionChange): void {
    try {
      this.#options.onConnectionChange(change);
    } catch (error) {
      reportError(error);
    }
  }

  /** Closes all handles and the link, when the server has heard of it or a second is over. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const removals = [...this.#handles.keys()].map((handle) => {
      const removed = this.remove(handle);
      handle.release();
      return removed;
    });
    const { promise: patience, resolve } = Promise.withResolvers<void>();
    const cancelPatience = this.#system.after(CLOSE_MS_MAX, resolve);
    await Promise.race([Promise.all(removals), patience]);
    cancelPatience();
    this.#finish();
  }

  /** Closes everything at once; the server removes what is left when it sees the socket closed. */
  abort(): void {
    this.#closed = true;
    for (const handle of [...this.#handles.keys()]) {
      this.remove(handle);
      handle.release();
    }
    this.#finish();
  }

  #finish(): void {
    this.#link.close();
    this.#formerScbs.dispose();
    this.#session?.scb[Symbol.dispose]();
    this.#session = null;
    this.#connected = false;
  }
}

/** The session that an answer to `Init` names, with the mapping of `before` where it is the same memory. */
function openSession(answer: Answer, before: Session | null): Session {
  const { response } = answer.message;
  const fds = new AnswerFds(answer.fds, "connect");
  try {
    if (response.case !== "init") {
      throw new ProtocolError(`Cannot connect: the server answered ${response.case}`);
    }
    const { scbFdIndex, sessionId, userId, groupId, extensions } = response.value;
    const registersAlways = extensions?.registersAlways ?? false;
    const fd = fds.take(scbFdIndex);
    if (before !== null && sameMemory(before.scb.fd, fd)) {
      fd.close();
      return { ...before, id: sessionId, userId, groupId, registersAlways };
    }
    const scb = SystemControlBlock.attach(fd);
    return { id: sessionId, userId, groupId, scb, registersAlways };
  } catch (error) {
    closeAll(answer.fds);
    throw error;
  } finally {
    fds.closeRest();
  }
}

/** The id of a user that a request or its answer names; undefined where it names none. */
function idIn(message: RequestInit | Answer["message"]): number | undefined {
  const value = ("request" in message ? message.request : (message as Answer["message"]).response)?.value;
  const { publisherId, subscriberId } = (value ?? {}) as { publisherId?: number; subscriberId?: number };
  return publisherId ?? subscriberId;
}

/** Runs what nobody waits for: a failure goes to the log. */
export function quietly(run: () => void): void {
  try {
    run();
  } catch (error) {
    log.warn("{message}", { message: (error as Error).message });
  }
}

/** Whether two fds are of the same file. */
export function sameMemory(a: Fd, b: Fd): boolean {
  const [x, y] = [a.stat(), b.stat()];
  return x.inode === y.inode && x.device === y.device;
}
