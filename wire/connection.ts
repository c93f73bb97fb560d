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
import { closeAll, duplicateAll, type Fd } from "../ffi/fd.ts";
import { FDS_PER_MESSAGE_MAX } from "../ffi/message.ts";
import { Ready, type Watch } from "../ffi/reactor.ts";
import { operatingSystem, type System } from "../ffi/system.ts";
import type { RefusalReason } from "./refusals.ts";

/** The peer broke the protocol, or a limit. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";

  /** @param reason What it counts as. */
  constructor(message: string, readonly reason: RefusalReason = "protocol") {
    super(message);
  }
}

/** The stream ended inside a message: the peer died while it sent, or does not know the protocol. */
export class CutOffError extends ProtocolError {}

/** Bounds of one connection. */
export interface ConnectionLimits {
  /** Longest message accepted, in bytes. Default: 64 MiB. */
  frameBytesMax?: number;
  /** Most fds accepted with one message. Default: 16384. */
  fdsMax?: number;
  /** Most bytes that wait to be sent before the peer counts as dead. Default: 64 MiB. */
  outboundBytesMax?: number;
  /** Most fds that wait to be sent. Default: 16384. */
  outboundFdsMax?: number;
}

/** How messages of one direction of a link are decoded, and which of them have fds behind them. */
export interface Codec<Message> {
  /** Decodes a frame. Whatever it throws counts as a violation by the peer. */
  decode(bytes: Uint8Array): Message;
  fdsFollow(message: Message): boolean;
}

/** A message and the fds that came with it, which the receiver owns. */
export interface Incoming<Message> {
  readonly message: Message;
  readonly fds: Fd[];
}

interface Outbound {
  readonly bytes: Uint8Array<ArrayBuffer>;
  sent: number;
  readonly fds: Fd[];
}

/** Fds that a read brought; `end` is the stream position behind that read. */
export interface Arrival {
  readonly end: number;
  readonly fds: Fd[];
}

/** All that a connection is beside its socket, for another process to go on with it. */
export interface ConnectionState {
  /** A message whose fds are still to come; null for none. */
  readonly pending: Uint8Array | null;
  /** Those of its fds that have come. */
  readonly pendingFds: readonly Fd[];
  /** What was received behind it. */
  readonly input: Uint8Array;
  /** The fds that came with that, positions counted from its beginning. */
  readonly arrivals: readonly Arrival[];
  /** What is still to be sent. */
  readonly outbound: readonly { readonly bytes: Uint8Array<ArrayBuffer>; readonly fds: Fd[] }[];
}

const HEADER_BYTES = 4;
const READ_BYTES = 64 * 1024;
/** What all connections read to, one after the other: what came is copied from here, and few ever have as much waiting. */
const landing = new Uint8Array(READ_BYTES);
/** What a connection has room for once something came, at the least; and at the most when nothing waits. */
const INPUT_BYTES_MIN = 256, INPUT_BYTES_KEPT_MAX = 4 * READ_BYTES;
const NO_INPUT = new Uint8Array(0);
/** What a connection waits for; and while it is suspended: that the peer is gone is reported all the same. */
const AWAKE = Ready.readable | Ready.writable | Ready.edge, ASLEEP = Ready.edge;
/** How soon sending is tried again when too many fds are in flight, which no event ever ends. */
const FDS_IN_FLIGHT_RETRY_MS = 1;

/** A frame around a message. */
export function frame(message: Uint8Array, extraBytes = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES + message.length + extraBytes);
  new DataView(bytes.buffer).setUint32(0, message.length);
  bytes.set(message, HEADER_BYTES);
  return bytes;
}

/** One end of a stream socket that carries framed messages and fds. */
export class Connection implements Disposable {
  readonly #limits: Required<ConnectionLimits>;
  /** null once it is closed. */
  #watch: Watch | null = null;
  #suspended: boolean;
  #input = NO_INPUT;
  #start = 0;
  #end = 0;
  /** Stream position of `#input[#start]`. */
  #position = 0;
  #arrivals: Arrival[] = [];
  /** A message whose fds are still to come. */
  #pending: { codec: Codec<unknown> | null; message: unknown; bytes: Uint8Array } | null = null;
  #frameFds: Fd[] = [];
  #ended = false;

  readonly #outbound: Outbound[] = [];
  #outboundBytes = 0;
  #outboundFds = 0;
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
    this.#limits = {
      frameBytesMax: limits.frameBytesMax ?? 64 * 1024 * 1024,
      fdsMax: limits.fdsMax ?? 16384,
      outboundBytesMax: limits.outboundBytesMax ?? 64 * 1024 * 1024,
      outboundFdsMax: limits.outboundFdsMax ?? 16384,
    };
    this.#suspended = state !== null;
    if (state !== null) this.#adopt(state);
    try {
      this.#watch = this.system.watch(socket, state === null ? AWAKE : ASLEEP, (ready) => this.#ready(ready));
    } catch (error) {
      this.close(error as Error);
      throw error;
    }
  }

  #adopt({ pending, pendingFds, input, arrivals, outbound }: ConnectionState): void {
    if (pending !== null) this.#pending = { codec: null, message: null, bytes: pending };
    this.#frameFds.push(...pendingFds);
    this.#append(input);
    this.#arrivals.push(...arrivals);
    for (const { bytes, fds } of outbound) this.#put(bytes, 0, fds);
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
    return {
      pending: this.#pending?.bytes ?? null,
      pendingFds: this.#frameFds,
      input: this.#input.slice(this.#start, this.#end),
      arrivals: this.#arrivals.map(({ end, fds }) => ({ end: end - this.#position, fds })),
      outbound: this.#outbound.map(({ bytes, sent, fds }) => ({ bytes: bytes.subarray(sent), fds })),
    };
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
    return this.#outbound.length;
  }

  /** Bytes that wait to be sent. */
  get outboundBytes(): number {
    return this.#outboundBytes;
  }

  /** Fds that wait to be sent. */
  get outboundFds(): number {
    return this.#outboundFds;
  }

  #ready(ready: number): void {
    if (this.#suspended) return;
    if ((ready & (Ready.writable | Ready.error | Ready.hangup)) !== 0 && this.#outbound.length > 0) {
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
        const incoming = this.#parse(codec);
        if (incoming !== null) return incoming;
        if (this.#ended) this.#endOfStream();
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

  #parse<Message>(codec: Codec<Message>): Incoming<Message> | null {
    const pending = this.#pending, bytes = pending?.bytes ?? this.#parseFrame();
    if (bytes === null) return null;
    const message = pending?.codec === codec ? pending.message as Message : codec.decode(bytes);
    const fds = codec.fdsFollow(message) ? this.#parseFds() : [];
    this.#pending = fds === null ? { codec, message, bytes } : null;
    return fds === null ? null : { message, fds };
  }

  #parseFrame(): Uint8Array | null {
    if (this.#end - this.#start < HEADER_BYTES) return null;
    const length = new DataView(this.#input.buffer, this.#start, HEADER_BYTES).getUint32(0);
    if (length > this.#limits.frameBytesMax) {
      throw new ProtocolError(
        `Cannot receive a message of ${length} bytes: the limit is ${this.#limits.frameBytesMax}`,
        "frame",
      );
    }
    if (this.#end - this.#start < HEADER_BYTES + length) return null;
    // A copy: the message may keep parts of it, and the buffer is used again.
    const message = this.#input.slice(this.#start + HEADER_BYTES, this.#start + HEADER_BYTES + length);
    this.#consume(HEADER_BYTES + length);
    if (this.#arrivals.length > 0 && this.#arrivals[0].end <= this.#position) {
      throw new ProtocolError("Cannot accept fds that came inside a message");
    }
    return message;
  }

  #parseFds(): Fd[] | null {
    while (this.#end - this.#start >= HEADER_BYTES) {
      const total = new DataView(this.#input.buffer, this.#start, HEADER_BYTES).getInt32(0, true);
      if (total < 0 || total > this.#limits.fdsMax) {
        throw new ProtocolError(`Cannot receive ${total} fds: the limit is ${this.#limits.fdsMax}`, "frame");
      }
      this.#consume(HEADER_BYTES);
      const before = this.#frameFds.length;
      while (this.#arrivals.length > 0 && this.#arrivals[0].end <= this.#position) {
        this.#frameFds.push(...this.#arrivals.shift()!.fds);
      }
      const fds = this.#frameFds;
      if (fds.length > total || (total > 0 && fds.length === before)) {
        throw new ProtocolError(`Cannot receive fds: ${total} announced, ${fds.length} came`);
      }
      if (fds.length === total) {
        this.#frameFds = [];
        return fds;
      }
    }
    return null;
  }

  #consume(bytes: number): void {
    this.#start += bytes;
    this.#position += bytes;
    if (this.#start < this.#end) return;
    this.#start = this.#end = 0;
    // One long message is no reason to hold so much for ever.
    if (this.#input.length > INPUT_BYTES_KEPT_MAX) this.#input = NO_INPUT;
  }

  /** Reads once. Returns whether anything came, the end of the stream included. */
  #fill(): boolean {
    const received = this.system.receive(this.socket, landing);
    if (received === null) return false;
    this.#append(landing.subarray(0, received.byteLength));
    if (received.byteLength === 0) this.#ended = true;
    if (received.fds.length > 0) {
      this.#arrivals.push({ end: this.#position + this.#end - this.#start, fds: received.fds });
    }
    return true;
  }

  #append(bytes: Uint8Array): void {
    this.#makeRoom(bytes.length);
    this.#input.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** Grows with what has arrived, never with what was announced. */
  #makeRoom(bytes: number): void {
    if (this.#end + bytes <= this.#input.length) return;
    const waiting = this.#end - this.#start, needed = waiting + bytes;
    const target = needed <= this.#input.length
      ? this.#input
      : new Uint8Array(Math.max(needed, 2 * waiting, INPUT_BYTES_MIN));
    target.set(this.#input.subarray(this.#start, this.#end));
    this.#input = target;
    this.#start = 0;
    this.#end = waiting;
  }

  #endOfStream(): void {
    const inside = this.#end > this.#start || this.#pending !== null;
    this.close(inside ? new CutOffError("Cannot receive: the stream ended inside a message") : null);
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
        const total = new Uint8Array(HEADER_BYTES);
        new DataView(total.buffer).setInt32(0, fds.length, true);
        this.#enqueue(total, fds.slice(i, i + FDS_PER_MESSAGE_MAX));
      }
    }
    if (
      this.#outboundBytes > this.#limits.outboundBytesMax || this.#outboundFds > this.#limits.outboundFdsMax
    ) {
      this.close(
        new ProtocolError(
          `Cannot send: the peer does not read (${this.#outboundBytes} bytes and ${this.#outboundFds} fds wait)`,
          "stalled",
        ),
      );
    }
  }

  #enqueue(bytes: Uint8Array<ArrayBuffer>, fds: readonly Fd[]): void {
    if (this.#closed) return;
    try {
      const sent = this.#outbound.length === 0 && !this.suspended ? this.#trySend(bytes, fds) : 0;
      if (sent === bytes.length) return;
      // The sender's fds may be closed before their turn comes, and their numbers used again.
      this.#put(bytes, sent, sent === 0 ? duplicateAll(fds) : []);
    } catch (error) {
      this.close(error as Error);
    }
  }

  #put(bytes: Uint8Array<ArrayBuffer>, sent: number, fds: Fd[]): void {
    this.#outbound.push({ bytes, sent, fds });
    this.#outboundBytes += bytes.length - sent;
    this.#outboundFds += fds.length;
  }

  #flush(): void {
    if (this.suspended) return;
    while (this.#outbound.length > 0 && !this.#closed) {
      const next = this.#outbound[0];
      try {
        const sent = this.#trySend(next.bytes.subarray(next.sent), next.fds);
        if (sent === 0) return;
        next.sent += sent;
        this.#outboundBytes -= sent;
      } catch (error) {
        return this.close(error as Error);
      }
      this.#outboundFds -= next.fds.length;
      closeAll(next.fds.splice(0));
      if (next.sent === next.bytes.length) this.#outbound.shift();
    }
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
    if (this.#outbound.length === 0 || this.#closed) return;
    const endWatch = stallMs === undefined ? undefined : this.#dropWhenStalled(stallMs);
    while (this.#outbound.length > 0 && !this.#closed) {
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
    for (const { fds } of this.#arrivals.splice(0)) closeAll(fds);
    for (const { fds } of this.#outbound.splice(0)) closeAll(fds);
    closeAll(this.#frameFds.splice(0));
    this.#outboundBytes = this.#outboundFds = 0;
    this.#wakeReader?.();
    this.onReadable?.();
    for (const wake of this.#wakeWriters.splice(0)) wake();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
