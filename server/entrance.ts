/** Where clients come in: connections are accepted, and those that may be served let in. */

import type { Fd } from "../ffi/fd.ts";
import { Ready, type Watch } from "../ffi/reactor.ts";
import type { System } from "../ffi/system.ts";
import { type AccessPolicy, type Peer, peerText } from "../wire/access.ts";
import { peerOf } from "../wire/peer.ts";
import type { RefusalReason } from "../wire/refusals.ts";
import type { ServerCounters } from "./counters.ts";

/** How long accepting rests when this process has no fd left. */
const ACCEPT_REST_MS = 100;
/** What the listening socket is watched for while nobody is accepted. */
const NOTHING = 0;

/** Who is let in, and where to. */
export interface EntranceOptions {
  readonly system: System;
  readonly access: AccessPolicy;
  readonly connectionsMax: number;
  readonly counters: ServerCounters;
  /** Takes the connection of somebody who is let in. */
  letIn(socket: Fd, peer: Peer): void;
  /** Counts what is refused, and tells of it. */
  refuse(reason: RefusalReason, text: string): void;
}

/** The listening socket of a server. Nobody is accepted until `resume`. */
export class Entrance {
  readonly #watch: Watch;
  #cancelRest: () => void = () => {};

  /** @param listener Owned by the entrance from now on. */
  constructor(readonly listener: Fd, private readonly options: EntranceOptions) {
    this.#watch = options.system.watch(listener, NOTHING, () => this.#accept());
  }

  #accept(): void {
    const { system } = this.options;
    try {
      const next = () => system.accept(this.listener);
      for (let socket = next(); socket !== null; socket = next()) this.#welcome(socket);
    } catch (error) {
      // Without an fd left the listener stays readable: rest, and let others close some.
      this.options.refuse("fds", `Failed to accept a client: ${(error as Error).message}`);
      this.#watch.rearm(NOTHING);
      this.#cancelRest = system.after(ACCEPT_REST_MS, () => this.resume());
    }
  }

  #welcome(socket: Fd): void {
    const peer = peerOf(this.options.system, socket);
    const refusal = this.#objection(peer);
    if (refusal === null) return this.options.letIn(socket, peer);
    socket.close();
    this.options.refuse(refusal.reason, `Refused a client (${peerText(peer)}): ${refusal.text}`);
  }

  #objection(peer: Peer): { reason: RefusalReason; text: string } | null {
    const { access, connectionsMax, counters } = this.options;
    if (!access.admits(peer)) {
      return { reason: "access", text: "neither --allow_user nor --allow_group names it" };
    }
    if (counters.connections < connectionsMax) return null;
    return { reason: "connections", text: `${connectionsMax} clients are connected (--max_connections)` };
  }

  /** Accepts nobody until `resume`. */
  suspend(): void {
    this.#watch.rearm(NOTHING);
    this.#cancelRest();
  }

  resume(): void {
    this.#watch.rearm(Ready.readable);
  }

  close(): void {
    this.#watch.close();
    this.#cancelRest();
    this.listener.close();
  }
}
