/**
 * What has arrived on a connection, taken apart into messages and their fds (specification, section 1).
 *
 * Invariants: memory grows with what has arrived, never with what was announced; an fd is handed out, or closed by
 * `close`.
 */

import { closeAll, type Fd } from "../ffi/fd.ts";
import { HEADER_BYTES } from "./frame.ts";
import { CutOffError, ProtocolError } from "./protocol_error.ts";

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

/** Fds that a read brought; `end` is the stream position behind that read. */
export interface Arrival {
  readonly end: number;
  readonly fds: Fd[];
}

/** What has arrived and was not taken. */
export interface InboundState {
  /** A message whose fds are still to come; null for none. */
  readonly pending: Uint8Array | null;
  /** Those of its fds that have come. */
  readonly pendingFds: readonly Fd[];
  /** What was received behind it. */
  readonly input: Uint8Array;
  /** The fds that came with that, positions counted from its beginning. */
  readonly arrivals: readonly Arrival[];
}

/** Bounds of what arrives. */
export interface InboundLimits {
  /** Longest message accepted, in bytes. Default: 64 MiB. */
  frameBytesMax?: number;
  /** Most fds accepted with one message. Default: 16384. */
  fdsMax?: number;
}

/** What there is room for once something came, at the least; and at the most when nothing waits. */
const INPUT_BYTES_MIN = 256, INPUT_BYTES_KEPT_MAX = 256 * 1024;
const NO_INPUT = new Uint8Array(0);

/** The receiving half of a connection, without its socket. */
export class Inbound {
  readonly #frameBytesMax: number;
  readonly #fdsMax: number;
  #input = NO_INPUT;
  #start = 0;
  #end = 0;
  /** Stream position of `#input[#start]`. */
  #position = 0;
  #arrivals: Arrival[] = [];
  /** A message whose fds are still to come. */
  #pending: { codec: Codec<unknown> | null; message: unknown; bytes: Uint8Array } | null = null;
  #frameFds: Fd[] = [];

  constructor({ frameBytesMax = 64 * 1024 * 1024, fdsMax = 16384 }: InboundLimits) {
    this.#frameBytesMax = frameBytesMax;
    this.#fdsMax = fdsMax;
  }

  /** Goes on where another one was, whose fds are its own from now on. */
  adopt({ pending, pendingFds, input, arrivals }: InboundState): void {
    if (pending !== null) this.#pending = { codec: null, message: null, bytes: pending };
    this.#frameFds.push(...pendingFds);
    this.append(input, []);
    this.#arrivals.push(...arrivals);
  }

  /** What another one would need to go on. The fds are borrowed. */
  get state(): InboundState {
    return {
      pending: this.#pending?.bytes ?? null,
      pendingFds: this.#frameFds,
      input: this.#input.slice(this.#start, this.#end),
      arrivals: this.#arrivals.map(({ end, fds }) => ({ end: end - this.#position, fds })),
    };
  }

  /** Adds what one read brought. The bytes are copied; the fds are owned from now on. */
  append(bytes: Uint8Array, fds: Fd[]): void {
    this.#makeRoom(bytes.length);
    this.#input.set(bytes, this.#end);
    this.#end += bytes.length;
    if (fds.length > 0) this.#arrivals.push({ end: this.#position + this.#end - this.#start, fds });
  }

  /**
   * Takes the next message and its fds, if all of it is here; null where it is not.
   *
   * @throws {ProtocolError} If the peer broke the protocol, or a limit.
   * @throws What the codec throws.
   */
  take<Message>(codec: Codec<Message>): Incoming<Message> | null {
    const pending = this.#pending, bytes = pending?.bytes ?? this.#takeFrame();
    if (bytes === null) return null;
    const message = pending?.codec === codec ? pending.message as Message : codec.decode(bytes);
    const fds = codec.fdsFollow(message) ? this.#takeFds() : [];
    this.#pending = fds === null ? { codec, message, bytes } : null;
    return fds === null ? null : { message, fds };
  }

  /** What is wrong if nothing comes after what has arrived; null for nothing. */
  checkEnd(): CutOffError | null {
    const inside = this.#end > this.#start || this.#pending !== null;
    return inside ? new CutOffError("Cannot receive: the stream ended inside a message") : null;
  }

  /** Closes all fds that nobody took. */
  close(): void {
    for (const { fds } of this.#arrivals.splice(0)) closeAll(fds);
    closeAll(this.#frameFds.splice(0));
  }

  #takeFrame(): Uint8Array | null {
    if (this.#end - this.#start < HEADER_BYTES) return null;
    const length = new DataView(this.#input.buffer, this.#start, HEADER_BYTES).getUint32(0);
    if (length > this.#frameBytesMax) {
      throw new ProtocolError(
        `Cannot receive a message of ${length} bytes: the limit is ${this.#frameBytesMax}`,
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

  #takeFds(): Fd[] | null {
    while (this.#end - this.#start >= HEADER_BYTES) {
      const total = new DataView(this.#input.buffer, this.#start, HEADER_BYTES).getInt32(0, true);
      if (total < 0 || total > this.#fdsMax) {
        throw new ProtocolError(`Cannot receive ${total} fds: the limit is ${this.#fdsMax}`, "frame");
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
}
