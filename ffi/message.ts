/** Bytes and fds over a unix socket: sendmsg and recvmsg with SCM_RIGHTS. */

import { Errno, SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { errno, libc } from "./libc.ts";

/** Fds in one `sendMessage` at the most (specification, section 1.3). */
export const FDS_PER_MESSAGE_MAX = 252;

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** One msghdr, iovec and control buffer for all calls: a call is over before the next begins. */
const IOVEC = 64;
const CONTROL = 128;
const CONTROL_BYTES = 1040;
const header = new Uint8Array(CONTROL + CONTROL_BYTES);
const headerView = new DataView(header.buffer);
const base = addressOf(header.buffer);
headerView.setBigUint64(16, BigInt(base + IOVEC), true);
headerView.setBigUint64(24, 1n, true);

/** Where the buffer of the last call is: asking takes longer than the call, and mostly it is the same again. */
let payload: { readonly buffer: ArrayBuffer; readonly address: number } = {
  buffer: header.buffer,
  address: base,
};

/** Where short messages are sent from, copied: to ask where the bytes of each are takes longer. */
const outgoing = new Uint8Array(16 * 1024);
const outgoingAddress = addressOf(outgoing.buffer);

function addressOf(buffer: ArrayBuffer): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer)));
}

function setPayload({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>): void {
  if (payload.buffer !== buffer) payload = { buffer, address: addressOf(buffer) };
  setIovec(payload.address + byteOffset, length);
}

function setOutgoing(bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length > outgoing.length) return setPayload(bytes);
  outgoing.set(bytes);
  setIovec(outgoingAddress, bytes.length);
}

function setIovec(address: number, length: number): void {
  headerView.setBigUint64(IOVEC, BigInt(address), true);
  headerView.setUint32(IOVEC + 8, length, true);
}

function setControl(length: number): void {
  headerView.setBigUint64(32, length === 0 ? 0n : BigInt(base + CONTROL), true);
  headerView.setUint32(40, length, true);
}

/**
 * Sends bytes, with fds attached to the first of them. Never waits.
 *
 * @returns How many bytes went out, at least 1 (the fds are gone then); 0 where the socket is full.
 * @throws {SystemError} With code `EPIPE` or `ECONNRESET` where the peer is gone.
 */
export function sendMessage(socket: Fd, bytes: Uint8Array<ArrayBuffer>, fds: readonly Fd[] = []): number {
  if (fds.length > FDS_PER_MESSAGE_MAX) throw new RangeError(`Cannot send ${fds.length} fds at once`);
  setOutgoing(bytes);
  if (fds.length === 0) setControl(0);
  else {
    const length = 16 + 4 * fds.length;
    headerView.setBigUint64(CONTROL, BigInt(length), true);
    headerView.setInt32(CONTROL + 8, SOL_SOCKET, true);
    headerView.setInt32(CONTROL + 12, SCM_RIGHTS, true);
    fds.forEach((fd, i) => headerView.setInt32(CONTROL + 16 + 4 * i, fd.number, true));
    setControl((length + 7) & ~7);
  }
  const sent = libc.sendmsg(socket.number, header, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return sent;
  const error = errno();
  if (error === Errno.EAGAIN || error === Errno.EINTR || error === Errno.ENOBUFS) return 0;
  throw new SystemError("send to a socket", error);
}

/** What one `receiveMessage` brought. */
export interface Received {
  /** How many bytes were stored; 0 at the end of the stream. */
  readonly byteLength: number;
  /** Fds that came with them, owned by the caller. Nothing after the byte that they came with is in this read. */
  readonly fds: Fd[];
}

/**
 * Receives bytes and the fds attached to them. Never waits.
 *
 * @returns null where nothing is there.
 * @throws {SystemError} Where the connection broke, or more fds came than fit (they are closed).
 */
export function receiveMessage(socket: Fd, into: Uint8Array<ArrayBuffer>): Received | null {
  setPayload(into);
  setControl(CONTROL_BYTES);
  const received = libc.recvmsg(socket.number, header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (received < 0) {
    const error = errno();
    if (error === Errno.EAGAIN || error === Errno.EINTR) return null;
    throw new SystemError("receive from a socket", error);
  }
  const fds = readControl(headerView.getUint32(40, true));
  if ((headerView.getInt32(48, true) & MSG_CTRUNC) !== 0) {
    for (const fd of fds) fd.close();
    throw new SystemError("receive fds: more came than fit, or this process has no fd left", Errno.EMFILE);
  }
  return { byteLength: received, fds };
}

function readControl(length: number): Fd[] {
  const fds: Fd[] = [];
  for (let at = 0; at + 16 <= length;) {
    const bytes = headerView.getUint32(CONTROL + at, true);
    if (bytes < 16) break;
    const level = headerView.getInt32(CONTROL + at + 8, true);
    const type = headerView.getInt32(CONTROL + at + 12, true);
    if (level === SOL_SOCKET && type === SCM_RIGHTS) {
      for (let i = 16; i + 4 <= bytes; i += 4) {
        fds.push(Fd.adopt(headerView.getInt32(CONTROL + at + i, true), "received"));
      }
    }
    at += (bytes + 7) & ~7;
  }
  return fds;
}
