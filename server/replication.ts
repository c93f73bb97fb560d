/** What the server and its shadows agree on: events out, and everything once for a shadow that has just come. */

import type { Fd } from "../ffi/fd.ts";
import type { ConnectionState } from "../wire/connection.ts";
import type { ShadowEventInit } from "../wire/shadow_link.ts";
import type { ChannelRecord } from "../wire/state_dump.ts";
import type { Change } from "./journal.ts";

/** How a server's link to a shadow is. */
export interface ShadowStatus {
  readonly label: string;
  readonly socket: string;
  /** Whether it has had everything, and is told what happens. */
  readonly connected: boolean;
  /** Changes that it has not been told yet. */
  readonly lag: number;
  /** How often it got everything, by reason. */
  readonly syncFull: ReadonlyMap<SyncReason, number>;
  /** Why it got everything the last time; null if it never did. */
  readonly lastFullSync: SyncReason | null;
  /** How often it got only what it had missed. */
  readonly syncPartial: number;
}

/**
 * Why a shadow got everything: the server began, the shadow has none of this server's state, it missed more than the
 * journal holds, or it is one of the reference's, which does not say what it has.
 */
export type SyncReason = "start" | "new" | "behind" | "reference";

/** A link to a shadow, for another server to go on with. */
export interface HandedLink {
  /** Abstract name of the shadow's socket. */
  readonly name: string;
  readonly syncFull: ReadonlyMap<SyncReason, number>;
  readonly lastFullSync: SyncReason | null;
  readonly syncPartial: number;
  /** If the shadow is there and knows everything. */
  readonly connection:
    | { readonly socket: Fd; readonly state: ConnectionState; readonly resumable: boolean }
    | null;
}

/** A replication, for another server to go on with. */
export interface HandedReplication {
  readonly generation: bigint;
  /** Of the newest change. */
  readonly offset: number;
  readonly links: readonly HandedLink[];
}

/** Where the events of a server go. */
export interface Replication {
  /** A number for this run of the server. */
  readonly generation: bigint;
  /** Of the newest change. */
  readonly offset: number;
  /** How each shadow is, in the order of preference. */
  readonly shadows: readonly ShadowStatus[];
  /** Whether a shadow has the state, and so the next server will. */
  readonly connected: boolean;
  /** Sends an event to every connected shadow. Never waits; the fds stay the caller's. */
  replicate(event: ShadowEventInit, fds: readonly Fd[]): void;
  /** Says nothing more to shadows that know everything, until `resume`. Returns what it is then; the fds are borrowed. */
  suspend(): HandedReplication;
  resume(): void;
  /** Leaves the shadows to the server that goes on. */
  abandon(): void;
  /** Closes the links when what was sent has gone out, or a bounded time has passed. The shadows keep their state. */
  close(): Promise<void>;
}

/** The state that a shadow mirrors, for one that has just connected. Implemented by `ChannelTable`. */
export interface ReplicationSource {
  readonly sessionId: bigint;
  readonly scb: Fd;
  /**
   * All channels, physical ones before their virtual channels. The fds are borrowed: valid until the next change
   * of the table, to be sent at once and never closed.
   */
  records(): Iterable<ChannelRecord>;
  /** What to tell a shadow of a change now; null for nothing. The fds are borrowed as those of `records` are. */
  eventOf(change: Change): [ShadowEventInit, Fd[]] | null;
}
