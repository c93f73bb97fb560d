/**
 * A client's control plane: its session, its requests, and getting back all that it has when the server comes back
 * (specification, section 3.6).
 */

import { getLogger } from "@logtape/logtape";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { operatingSystem, type System } from "../ffi/system.ts";
import { ClosedError, ConnectionError, TimeoutError } from "./errors.ts";
import { type Handle, Handles, type Reattachment } from "./handles.ts";
import {
  type Answer,
  type Exchange,
  type Greeting,
  type RequestInit,
  ServerLink,
  type ServerProcess,
} from "./server_link.ts";
import { openSession, type Session } from "./session.ts";

const log = getLogger(["subspace", "client"]);

/** Hot calls between two looks at the socket while something is under way; and else, at the clock. */
const BUSY_CALLS = 8;
const IDLE_CALLS = 64;
/** Between two looks at the socket while nothing is under way: each takes as long as reading several messages. */
const LOOK_EVERY_MS = 1;

/** How long closing waits for the server to hear of it. */
const CLOSE_MS_MAX = 1000;

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
  /** A number that no other client has. */
  readonly token: bigint;
  readonly requestTimeoutMs: number;
  readonly doorbell: boolean;
  readonly onConnectionChange: (change: ConnectionChange) => void;
  /** The machine's sockets and clock. Default: those of this one. */
  readonly system?: System;
}

/** The control plane of one client. */
export class Control {
  readonly #link: ServerLink;
  readonly #options: ControlOptions;
  readonly #system: System;
  readonly #handles: Handles;
  #session: Session | null = null;
  /** Of servers before: what publishers and subscribers look at until they have new memory. */
  #formerScbs = new DisposableStack();
  /** The server that answered last. */
  #server: ServerProcess | null = null;
  #connected = false;
  /** Whether a server had answered before the present one did. */
  #again = false;
  #reattachments = 0;
  #onProgress: ((failure: Error | null) => void) | null = null;
  #credit = IDLE_CALLS;
  #lookedAt = 0;
  #closed = false;
  /**
   * Behind all that it has, and all requests that are repeated: what else a server has of this client was granted by one
   * that died before it said so, and was not wanted any more, or refused by another one, meanwhile.
   */
  readonly #allClaimed: Exchange = {
    request: { request: { case: "removeUnclaimed", value: {} } },
    repeat: false,
    oneWay: true,
    settle: () => {},
  };

  constructor(options: ControlOptions) {
    this.#options = options;
    this.#system = options.system ?? operatingSystem;
    this.#link = new ServerLink(options.socket, options, this.#system, {
      greeted: (greeting) => this.#greeted(greeting),
      lost: (reason) => this.#lost(reason),
    });
    this.#handles = new Handles(this.#link, (outcome) => this.#attached(outcome));
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
          this.#handles.undo(handle, answer);
          throw new ClosedError(`Cannot create a ${handle.title}: the client was closed`);
        }
        handle.adopt(answer);
        this.#handles.add(handle);
      },
      (answer) => this.#handles.undo(handle, answer),
    );
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
    return this.#handles.remove(handle);
  }

  /** A handle that failed is not made known to servers any more. */
  forget(handle: Handle): void {
    this.#handles.forget(handle);
  }

  /** Makes the server forget a user. Resolves like `remove`. */
  sendRemoval(request: RequestInit): Promise<void> {
    return this.#handles.sendRemoval(request);
  }

  #greeted({ answer, server }: Greeting): Exchange[] {
    const before = this.#session;
    this.#session = openSession(answer, before);
    if (before !== null && before.scb !== this.#session.scb) this.#formerScbs.use(before.scb);
    // A server that is still the same process has hung up on us, and forgotten what we had. (One inside this process
    // may have been started anew.)
    const sameServer = isSameProcess(server, this.#server) && server.pid !== this.#system.pid;
    const remembers = before?.scb === this.#session.scb && before.id === this.#session.id && !sameServer;
    this.#server = server;
    this.#again = before !== null;
    this.#link.withdraw(this.#allClaimed);
    return this.#handles.attach(remembers);
  }

  #attached({ recreated, failed }: Reattachment): void {
    this.#connected = true;
    this.#formerScbs.dispose();
    this.#formerScbs = new DisposableStack();
    this.#onProgress?.(null);
    if (!this.#again) return;
    this.#reattachments++;
    if (this.session.removesUnclaimed) this.#link.exchange(this.#allClaimed);
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
    const removals = this.#handles.removeAll();
    const { promise: patience, resolve } = Promise.withResolvers<void>();
    const cancelPatience = this.#system.after(CLOSE_MS_MAX, resolve);
    await Promise.race([Promise.all(removals), patience]);
    cancelPatience();
    this.#finish();
  }

  /** Closes everything at once; the server removes what is left when it sees the socket closed. */
  abort(): void {
    this.#closed = true;
    this.#handles.removeAll();
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

/** Whether it is the same process, as far as that can be told: an id may have been given again. */
function isSameProcess({ pid, start }: ServerProcess, before: ServerProcess | null): boolean {
  if (pid === 0 || pid !== before?.pid) return false;
  return start === before.start || !start || !before.start;
}

/** Runs what nobody waits for: a failure goes to the log. */
export function quietly(run: () => void): void {
  try {
    run();
  } catch (error) {
    log.warn("{message}", { message: (error as Error).message });
  }
}
