/** Unix stream sockets with padded abstract names (specification, section 1.1). */

import { Errno, SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { errno, libc, rareLibc } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERGROUPS = 59;

const SOCKADDR_BYTES = 110;
const NAME_BYTES_MAX = 106;

/** Connections that may wait to be accepted. More than the reference's 10: a thousand clients re-attach at once. */
const BACKLOG = 1024;

/** Who is at the other end of a socket, as the kernel saw it when the connection was made. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** The whole `sockaddr_un` is the address: the name is followed by zeros to the end. */
function abstractAddress(name: string): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(name);
  if (text.length === 0 || text.includes(0)) {
    throw new TypeError(`Cannot use ${JSON.stringify(name)} as a socket name`);
  }
  const address = new Uint8Array(SOCKADDR_BYTES);
  address[0] = AF_UNIX;
  address.set(text.subarray(0, NAME_BYTES_MAX), 3);
  return address;
}

/** Whether a name fits into an address as a whole. A longer one is cut off, as the reference does. */
export function isWholeName(name: string): boolean {
  return new TextEncoder().encode(name).length <= NAME_BYTES_MAX;
}

function createSocket(): Fd {
  const number = libc.socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return Fd.from(number, "socket", "create a socket");
}

/**
 * Listens on an abstract name; the socket is non-blocking.
 *
 * @throws {SystemError} With code `EADDRINUSE` where somebody listens already.
 */
export function listenAbstract(name: string): Fd {
  const address = abstractAddress(name);
  const fd = createSocket();
  if (libc.bind(fd.number, address, SOCKADDR_BYTES) < 0 || libc.listen(fd.number, BACKLOG) < 0) {
    const error = new SystemError(`listen on ${name}`, errno());
    fd.close();
    throw error;
  }
  return fd;
}

/** Makes this process the one that those who connect from now on see at the other end of an inherited listener. */
export function claimListener(listener: Fd): void {
  // It listens already, so this cannot fail; and nobody is turned away meanwhile.
  libc.listen(listener.number, BACKLOG);
}

/**
 * Connects to an abstract name without waiting; the socket is non-blocking.
 *
 * @throws {SystemError} With code `ECONNREFUSED` where nobody listens, `EAGAIN` where the listener is swamped.
 */
export function connectAbstract(name: string): Fd {
  const address = abstractAddress(name);
  const fd = createSocket();
  if (libc.connect(fd.number, address, SOCKADDR_BYTES) < 0) {
    const error = new SystemError(`connect to ${name}`, errno());
    fd.close();
    throw error;
  }
  return fd;
}

/**
 * Accepts the next connection, non-blocking; null where none waits.
 *
 * @throws {SystemError} For example with code `EMFILE`, when this process has no fd left.
 */
export function accept(listener: Fd): Fd | null {
  const number = libc.accept4(listener.number, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (number >= 0) return Fd.adopt(number, "socket");
  const error = errno();
  if (error === Errno.EAGAIN || error === Errno.ECONNABORTED || error === Errno.EINTR) return null;
  throw new SystemError("accept a connection", error);
}

/** Who connected: pid, uid and gid of the peer. */
export function peerCredentials(socket: Fd): PeerCredentials {
  const credentials = new Int32Array(3);
  const length = new Uint8Array(new Uint32Array([12]).buffer);
  if (
    libc.getsockopt(socket.number, SOL_SOCKET, SO_PEERCRED, new Uint8Array(credentials.buffer), length) < 0
  ) {
    throw new SystemError("ask who is at the other end of a socket", errno());
  }
  return { pid: credentials[0], uid: credentials[1] >>> 0, gid: credentials[2] >>> 0 };
}

/** As many groups as the kernel allows a process (NGROUPS_MAX). */
const GROUPS_MAX = 65_536;

/** The supplementary groups of who connected, as they were then; none where the kernel does not say. */
export function peerGroups(socket: Fd): number[] {
  for (let room = 64; room <= GROUPS_MAX; room *= 32) {
    const groups = new Uint32Array(room);
    const length = new Uint32Array([groups.byteLength]);
    const bytes = [groups, length].map(({ buffer }) => new Uint8Array(buffer));
    const result = libc.getsockopt(socket.number, SOL_SOCKET, SO_PEERGROUPS, bytes[0], bytes[1]);
    if (result === 0) return Array.from(groups.subarray(0, length[0] / groups.BYTES_PER_ELEMENT));
    if (errno() !== Errno.ERANGE) break;
  }
  return [];
}

/** Two connected non-blocking sockets. */
export function socketPair(): [Fd, Fd] {
  const numbers = new Int32Array(2);
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (rareLibc().socketpair(AF_UNIX, type, 0, new Uint8Array(numbers.buffer)) < 0) {
    throw new SystemError("create a socket pair", errno());
  }
  return [Fd.adopt(numbers[0], "socket"), Fd.adopt(numbers[1], "socket")];
}
