/**
 * Framed messages and fds over one stream socket (specification, section 1).
 *
 * A message is a big-endian length and so many bytes. Fds follow it, where its kind says so, in frames of their
 * own: four bytes that hold the total, and up to 252 fds.
 *
 * Invariants: nothing here waits for the peer except the promises of `receive` and `drained`; what is not sent yet
 * is bounded; an fd that arrives is handed out or closed; after a violation the connection is closed, with the
 * reason in `failure`.
 */

import { Errno, SystemError } from "../ffi/errno.ts";
import type { Fd } from "../ffi/fd.ts";
import { FDS_PER_MESSAGE_MAX } from "../ffi/message.ts";
import { Ready, type Watch } from "../ffi/reactor.ts";
import { operatingSystem, type System } from "../ffi/system.ts";
import { fdFrame, frame, HEADER_BYTES } from "./frame.ts";
import { type Codec, Inbound, type InboundLimits, type InboundState, type Incoming } from "./inbound.ts";
import { Outbound, type OutboundFrame, type OutboundLimits } from "./outbound.ts";
import { ProtocolError } from "./protocol_error.ts";

export type { Codec, Incoming } from "./inbound.ts";
export { CutOffError, ProtocolError } from "./protocol_error.ts";

/** Bounds of one connection. */
export interface ConnectionLimits extends InboundLimits, OutboundLimits {}

/** All that a connection is beside its socket, for another process to go on with it. */
export interface ConnectionState extends InboundState {
  /** What is still to be sent. */
  readonly outbound: readonly OutboundFrame[];
}

/** What all connections read to, one after the other: what came is copied from here, and few ever have as much waiting. */
const landing = new Uint8Array(64 * 1024);
/** What a connection waits for; and while it is suspended: that the peer is gone is reported all the same. */
const AWAKE = Ready.readable | Ready.writable | Ready.edge, ASLEEP = Ready.edge;
/** How soon sending is tried again when too many fds are in flight, which no event ever ends. */
const FDS_IN_FLIGHT_RETRY_MS = 1;

/** One end of a stream socket that carries framed messages and fds. */
export class Connection implements Disposable {
  readonly #inbound: Inbound;
  readonly #outbound: Outbound;
  /** null once it is closed. */
  #watch: Watch | null = null;
  #suspended: boolean;
  /** Whether the peer sends nothing more. */
  #ended = false;
  /** Bytes that the socket took since the connection began: whether this grows tells a slow peer from a stopped one. */
  #sentBytes = 0;

  #closed = false;
  #failure: Error | null = null;
  #wakeReader: (() => void) | null = null;
  #wakeWriters: (() => void)[] = [];
  /** Called whenever something may have arrived. For those who read with `tryReceive`. */
  onReadable: (() => void) | null = null;

  /**
   * @param socket Non-blocking; owned by the connection from now on.
   * @param system What the socket is one of.
   * @param state Of the connection that this one goes on with, whose fds are its own from now on. It is suspended then.
   * @throws {SystemError} If the socket cannot be watched. It is closed then, as are all fds.
   */
  constructor(
    readonly socket: Fd,
    limits: ConnectionLimits = {},
    private readonly system: System = operatingSystem,
    state: ConnectionState | null = null,
  ) {
    this.#inbound = new Inbound(limits);
    this.#outbound = new Outbound(limits);
    this.#suspended = state !== null;
    if (state !== null) {
      this.#inbound.adopt(state);
      this.#outbound.adopt(state.outbound);
    }
    try {
      this.#watch = this.system.watch(socket, state === null ? AWAKE : ASLEEP, (ready) => this.#ready(ready));
    } catch (error) {
      this.close(error as Error);
      throw error;
    }
  }

  /** Whether it leaves its socket alone, so that another process may go on with it. */
  get suspended(): boolean {
    return this.#suspended && !this.#closed;
  }

  /**
   * Leaves the socket alone until `resume`: nothing is received, and what is sent waits.
   *
   * @returns What the connection is by then. The fds are borrowed.
   */
  suspend(): ConnectionState {
    this.#suspended = true;
    this.#watch?.rearm(ASLEEP);
    return { ...this.#inbound.state, outbound: this.#outbound.state };
  }

  /** Goes on after `suspend`, or with the state that it was made of. It takes nothing that could be refused. */
  resume(): void {
    if (!this.suspended) return;
    this.#suspended = false;
    this.#watch?.rearm(AWAKE);
    this.#flush();
    this.#wakeReader?.();
    this.onReadable?.();
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Why the connection was closed; null if it is open, or ended in order. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** Messages, and frames of fds, that wait to be sent. */
  get outboundFrames(): number {
    return this.#outbound.frames;
  }

  /** Bytes that wait to be sent. */
  get outboundBytes(): number {
    return this.#outbound.bytes;
  }

  /** Fds that wait to be sent. */
  get outboundFds(): number {
    return this.#outbound.fds;
  }

  #ready(ready: number): void {
    if (this.#suspended) return;
    if ((ready & (Ready.writable | Ready.error | Ready.hangup)) !== 0 && this.#outbound.frames > 0) {
      this.#flush();
    }
    if ((ready & ~Ready.writable) === 0) return;
    this.#wakeReader?.();
    this.onReadable?.();
  }

  /**
   * Takes the next message and its fds, if all of it is here.
   *
   * @returns null where it is not, or where the connection is closed (see `closed` and `failure`).
   */
  tryReceive<Message>(codec: Codec<Message>): Incoming<Message> | null {
    while (!this.#closed && !this.suspended) {
      try {
        const incoming = this.#inbound.take(codec);
        if (incoming !== null) return incoming;
        if (this.#ended) this.close(this.#inbound.checkEnd());
        else if (!this.#fill()) return null;
      } catch (error) {
        this.close(error instanceof Error ? error : new Error(String(error)));
      }
    }
    return null;
  }

  /**
   * Waits for the next message and its fds.
   *
   * @returns null at the end of the stream, in order or not: see `failure`.
   */
  async receive<Message>(codec: Codec<Message>): Promise<Incoming<Message> | null> {
    while (true) {
      const incoming = this.tryReceive(codec);
      if (incoming !== null) return incoming;
      if (this.#closed) return null;
      await this.readable();
    }
  }

  /** Waits until something may have arrived, or the connection is closed. */
  async readable(): Promise<void> {
    if (this.#closed) return;
    await new Promise<void>((resolve) => this.#wakeReader = resolve);
    this.#wakeReader = null;
  }

  /** Reads once. Returns whether anything came, the end of the stream included. */
  #fill(): boolean {
    const received = this.system.receive(this.socket, landing);
    if (received === null) return false;
    this.#inbound.append(landing.subarray(0, received.byteLength), received.fds);
    if (received.byteLength === 0) this.#ended = true;
    return true;
  }

  /**
   * Sends a message, and with `fds` the frames that carry them. Returns at once; what does not fit into the socket
   * waits here, with duplicates of its fds.
   *
   * @param fds undefined: no fd frame follows. An empty list: an empty frame does.
   */
  send(message: Uint8Array, fds?: readonly Fd[]): void {
    if (this.#closed) return;
    if (fds === undefined || fds.length === 0) {
      this.#enqueue(frame(message, fds === undefined ? 0 : HEADER_BYTES), []);
    } else {
      this.#enqueue(frame(message), []);
      for (let i = 0; i < fds.length; i += FDS_PER_MESSAGE_MAX) {
        this.#enqueue(fdFrame(fds.length), fds.slice(i, i + FDS_PER_MESSAGE_MAX));
      }
    }
    const failure = this.#outbound.check();
    if (failure !== null) this.close(failure);
  }

  #enqueue(bytes: Uint8Array<ArrayBuffer>, fds: readonly Fd[]): void {
    if (this.#closed) return;
    try {
      const sent = this.#outbound.frames === 0 && !this.suspended ? this.#trySend(bytes, fds) : 0;
      if (sent < bytes.length) this.#outbound.add(bytes, sent, fds);
    } catch (error) {
      this.close(error as Error);
    }
  }

  #flush(): void {
    if (this.suspended || this.#closed) return;
    try {
      this.#outbound.flush((bytes, fds) => this.#trySend(bytes, fds));
    } catch (error) {
      return this.close(error as Error);
    }
    if (this.#outbound.frames === 0) this.#wakeAllWriters();
  }

  #wakeAllWriters(): void {
    for (const wake of this.#wakeWriters.splice(0)) wake();
  }

  #trySend(bytes: Uint8Array<ArrayBuffer>, fds: readonly Fd[]): number {
    try {
      const sent = this.system.send(this.socket, bytes, fds);
      this.#sentBytes += sent;
      return sent;
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== Errno.ETOOMANYREFS) throw error;
      // The peer has to take fds out first, and no event says when it has.
      this.system.after(FDS_IN_FLIGHT_RETRY_MS, () => this.#flush());
      return 0;
    }
  }

  /**
   * Waits until all that was sent is in the socket, or the connection is closed.
   *
   * @param stallMs A peer that reads nothing for so long is dropped. Default: never.
   */
  async drained(stallMs?: number): Promise<void> {
    if (this.#outbound.frames === 0 || this.#closed) return;
    const endWatch = stallMs === undefined ? undefined : this.#dropWhenStalled(stallMs);
    while (this.#outbound.frames > 0 && !this.#closed) {
      await new Promise<void>((resolve) => this.#wakeWriters.push(resolve));
    }
    endWatch?.();
  }

  /** Returns how to stop looking. */
  #dropWhenStalled(stallMs: number): () => void {
    const look = (before: number) =>
      this.system.after(stallMs, () => {
        if (this.#sentBytes > before) return void (cancel = look(this.#sentBytes));
        this.close(
          new ProtocolError(`Cannot send: the peer has read nothing for ${stallMs} ms`, "stalled"),
        );
      });
    let cancel = look(this.#sentBytes);
    return () => cancel();
  }

  /** Closes the socket and all fds that nobody took. */
  close(failure: Error | null = null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#failure = failure;
    this.#watch?.close();
    this.#watch = null;
    this.socket.close();
    this.#inbound.close();
    this.#outbound.close();
    this.#wakeReader?.();
    this.onReadable?.();
    this.#wakeAllWriters();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
