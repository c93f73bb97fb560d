/**
 * What waits to be sent on a connection, as the socket takes no more for now.
 *
 * Invariants: the fds are duplicates, as the sender's may be closed before their turn comes, and their numbers used
 * again; each is closed once it is sent, or by `close`.
 */

import { closeAll, duplicateAll, type Fd } from "../ffi/fd.ts";
import { ProtocolError } from "./protocol_error.ts";

/** A frame that is still to be sent, and the fds that go with it. */
export interface OutboundFrame {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly fds: Fd[];
}

/** Bounds of what waits. */
export interface OutboundLimits {
  /** Most bytes that wait to be sent before the peer counts as dead. Default: 64 MiB. */
  outboundBytesMax?: number;
  /** Most fds that wait to be sent. Default: 16384. */
  outboundFdsMax?: number;
}

/** The queue of a connection's sending half. */
export class Outbound {
  readonly #bytesMax: number;
  readonly #fdsMax: number;
  readonly #frames: (OutboundFrame & { sent: number })[] = [];
  #bytes = 0;
  #fds = 0;

  constructor({ outboundBytesMax = 64 * 1024 * 1024, outboundFdsMax = 16384 }: OutboundLimits) {
    this.#bytesMax = outboundBytesMax;
    this.#fdsMax = outboundFdsMax;
  }

  /** Frames that wait. */
  get frames(): number {
    return this.#frames.length;
  }

  /** Bytes that wait. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Fds that wait. */
  get fds(): number {
    return this.#fds;
  }

  /** What another connection would need to go on. The fds are borrowed. */
  get state(): OutboundFrame[] {
    return this.#frames.map(({ bytes, sent, fds }) => ({ bytes: bytes.subarray(sent), fds }));
  }

  /** Queues frames that another connection left; the fds are owned from now on. */
  adopt(frames: readonly OutboundFrame[]): void {
    for (const { bytes, fds } of frames) this.#put(bytes, 0, fds);
  }

  /**
   * Queues what is left of a frame.
   *
   * @param sent How many of its bytes are sent, and with the first of them its fds.
   * @throws {SystemError} If there are no fds left for duplicates.
   */
  add(bytes: Uint8Array<ArrayBuffer>, sent: number, fds: readonly Fd[]): void {
    this.#put(bytes, sent, sent === 0 ? duplicateAll(fds) : []);
  }

  #put(bytes: Uint8Array<ArrayBuffer>, sent: number, fds: Fd[]): void {
    this.#frames.push({ bytes, sent, fds });
    this.#bytes += bytes.length - sent;
    this.#fds += fds.length;
  }

  /**
   * Sends what the socket takes.
   *
   * @param send Returns how many bytes it took; with 0, no fds either.
   * @throws What `send` throws.
   */
  flush(send: (bytes: Uint8Array<ArrayBuffer>, fds: readonly Fd[]) => number): void {
    while (this.#frames.length > 0) {
      const next = this.#frames[0], sent = send(next.bytes.subarray(next.sent), next.fds);
      if (sent === 0) return;
      next.sent += sent;
      this.#bytes -= sent;
      this.#fds -= next.fds.length;
      closeAll(next.fds.splice(0));
      if (next.sent === next.bytes.length) this.#frames.shift();
    }
  }

  /** What is wrong with a peer for which too much waits; null where it is not too much. */
  check(): ProtocolError | null {
    if (this.#bytes <= this.#bytesMax && this.#fds <= this.#fdsMax) return null;
    const text = `Cannot send: the peer does not read (${this.#bytes} bytes and ${this.#fds} fds wait)`;
    return new ProtocolError(text, "stalled");
  }

  /** Drops all of it. */
  close(): void {
    for (const { fds } of this.#frames.splice(0)) closeAll(fds);
    this.#bytes = this.#fds = 0;
  }
}
