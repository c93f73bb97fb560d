/**
 * What programs need of the operating system to talk to each other and to tell the time: passed in, so that a
 * simulation can take its place. Nothing here waits.
 */

import { monotonicMs, monotonicNs } from "./clock.ts";
import type { Fd } from "./fd.ts";
import { type Received, receiveMessage, sendMessage } from "./message.ts";
import { processStart } from "./process.ts";
import { reactor, type ReadyCallback, type Watch } from "./reactor.ts";
import {
  accept,
  connectAbstract,
  listenAbstract,
  type PeerCredentials,
  peerCredentials,
  peerGroups,
} from "./unix_socket.ts";

/** Timers, to be replaced in simulations. */
export interface Timers {
  /** Calls back once, after so many milliseconds. Returns how to prevent it. */
  after(ms: number, callback: () => void): () => void;
}

/** Sockets, readiness and time, as one process sees them. */
export interface System extends Timers {
  /** Of this process. */
  readonly pid: number;
  /** See `processStart`. */
  processStart(pid: number): bigint | null;
  /** See `listenAbstract`. */
  listen(name: string): Fd;
  /** See `connectAbstract`. */
  connect(name: string): Fd;
  /** See `accept`. */
  accept(listener: Fd): Fd | null;
  /** See `peerCredentials`. */
  credentials(socket: Fd): PeerCredentials;
  /** See `peerGroups`. */
  groups(socket: Fd): number[];
  /** See `sendMessage`. */
  send(socket: Fd, bytes: Uint8Array<ArrayBuffer>, fds: readonly Fd[]): number;
  /** See `receiveMessage`. */
  receive(socket: Fd, into: Uint8Array<ArrayBuffer>): Received | null;
  /** See `Reactor.watch`. */
  watch(fd: Fd, events: number, callback: ReadyCallback): Watch;
  /** See `monotonicNs`. */
  monotonicNs(): bigint;
  /** See `monotonicMs`. */
  monotonicMs(): number;
}

/** The one that this process runs on. */
export const operatingSystem: System = {
  pid: Deno.pid,
  processStart,
  listen: listenAbstract,
  connect: connectAbstract,
  accept,
  credentials: peerCredentials,
  groups: peerGroups,
  send: sendMessage,
  receive: receiveMessage,
  watch: (fd, events, callback) => reactor().watch(fd, events, callback),
  monotonicNs,
  monotonicMs,
  after: (ms, callback) => reactor().after(ms, callback),
};
