/** What the server and its shadows agree on: events out, and everything once for a shadow that has just come. */

import type { Fd } from "../ffi/fd.ts";
import type { ShadowEventInit } from "../wire/shadow_link.ts";
import type { ChannelRecord } from "../wire/state_dump.ts";

/** Where the events of a server go. */
export interface Replication {
  /** Whether a shadow has the state, and so the next server will. */
  readonly connected: boolean;
  /** Sends an event to every connected shadow. Never waits; the fds stay the caller's. */
  replicate(event: ShadowEventInit, fds: readonly Fd[]): void;
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
}
