/** One client's connection: requests in, answers out, in order (specification, sections 2.1, 2.15). */

import { getLogger } from "@logtape/logtape";
import { closeAll, type Fd } from "../ffi/fd.ts";
import type { LoopMonitor } from "../ffi/loop_monitor.ts";
import type { System } from "../ffi/system.ts";
import { requestCodec, sendResponse } from "../wire/client_link.ts";
import type { Peer } from "../wire/access.ts";
import { Connection, type ConnectionState, type Incoming, ProtocolError } from "../wire/connection.ts";
import type { Init } from "../proto/message.ts";
import type { Request, ServerReport } from "../proto/subspace_pb.ts";
import { unsaidText } from "../wire/refusals.ts";
import type { ChannelTable } from "./channel_table.ts";
import type { ServerCounters } from "./counters.ts";
import type { ServerLimits } from "./limits.ts";
import { answer } from "./requests.ts";
import { Client } from "./users.ts";

const log = getLogger(["subspace", "server"]);

/** What may wait to be sent to a client before its next request has to wait too. */
const OUTBOUND_BYTES_BEFORE_PAUSE = 256 * 1024;
/** Requests that one client may have answered before all others get their turn. */
const REQUESTS_PER_TURN = 64;

/** Fds with one request. A registration carries one. */
const REQUEST_FDS_MAX = 16;

/** The server that a session belongs to. */
export interface SessionOwner {
  readonly table: ChannelTable;
  readonly limits: ServerLimits;
  readonly counters: ServerCounters;
  readonly system: System;
  /** To be told of requests. */
  readonly loop: LoopMonitor;
  /** What the server tells of its own work. */
  report(): Init<ServerReport>;
  /** A client wants to take this server over. Returns why it may not; null if it may, and does so when `run` is over. */
  refuseTakeover(peer: Peer): string | null;
}

/**
 * A client's end of a socket.
 *
 * @param state Of the connection to another server that this one goes on with.
 */
export function clientConnection(
  socket: Fd,
  { frameBytesMax }: ServerLimits,
  system: System,
  state?: ConnectionState,
): Connection {
  return new Connection(socket, { frameBytesMax, fdsMax: REQUEST_FDS_MAX }, system, state);
}

/** A client, for another server to go on with. */
export interface HandedClient {
  readonly name: string;
  readonly token: bigint;
  readonly users: readonly {
    readonly channelName: string;
    readonly id: number;
    readonly claimedPid: bigint;
  }[];
  readonly socket: Fd;
  readonly state: ConnectionState;
}

/** A client that is connected, until its connection ends. */
export class Session {
  /**
   * @param peer Whoever connected.
   * @param connection Owned by the session from now on.
   */
  constructor(
    private readonly owner: SessionOwner,
    readonly peer: Peer,
    readonly connection: Connection,
    readonly client = new Client(peer.pid),
  ) {}

  /**
   * Answers requests until the connection ends, for whatever reason; then the client's users are removed.
   *
   * @returns The connection where it has not ended: the client is to take the server over.
   */
  async run(): Promise<Connection | null> {
    let ended = true;
    try {
      ended = await this.#serve();
    } catch (error) {
      this.connection.close(error instanceof Error ? error : new Error(String(error)));
    }
    this.owner.table.disconnect(this.client);
    this.#explainEnd();
    return ended ? null : this.connection;
  }

  #explainEnd(): void {
    const { failure } = this.connection;
    if (!(failure instanceof ProtocolError)) return;
    const verdict = this.owner.counters.refusals.count(failure.reason, this.owner.table.host.monotonicNs());
    if (!verdict.log) return;
    log.error("{reason}; closed the connection of client {name} (pid {pid}){unsaid}", {
      reason: failure.message,
      name: this.client.name,
      pid: this.client.pid,
      unsaid: unsaidText(verdict),
    });
  }

  /** Returns whether the connection has ended. */
  async #serve(): Promise<boolean> {
    let turns = 0;
    while (true) {
      // Answered as it is taken: a hand-over finds each request either in the connection, or done.
      const incoming = this.connection.tryReceive(requestCodec);
      if (incoming === null) {
        if (this.connection.closed) return true;
        turns = 0;
        await this.connection.readable();
        continue;
      }
      if (incoming.message.request.case !== "takeOver") this.#answer(incoming);
      else if (this.#mayTakeOver(incoming)) return false;
      if (this.#mustPause()) {
        this.owner.counters.pauses++;
        await this.connection.drained();
      }
      if (++turns % REQUESTS_PER_TURN === 0) {
        await new Promise<void>((resolve) => this.owner.system.after(0, resolve));
      }
    }
  }

  #mustPause(): boolean {
    const { outboundFrames, outboundBytes } = this.connection;
    // An answer with fds waits as two frames.
    return outboundFrames >= 2 * this.owner.limits.requestsInFlightMax ||
      outboundBytes > OUTBOUND_BYTES_BEFORE_PAUSE;
  }

  #answer({ message, fds }: Incoming<Request>): void {
    const { request } = message, { table, counters } = this.owner;
    this.owner.loop.touch();
    counters.requested(request.case ?? "unknown");
    try {
      if (request.case === "getChannelInfo" && request.value.wantReport) {
        const value = { report: this.owner.report() };
        sendResponse(this.connection, { response: { case: "getChannelInfo", value } }, []);
        return;
      }
      const result = answer(table, this.client, message, fds, counters.refusals);
      if (result !== null) sendResponse(this.connection, { response: result.response }, result.fds);
    } finally {
      closeAll(fds);
    }
  }

  #mayTakeOver({ fds }: Incoming<Request>): boolean {
    closeAll(fds);
    this.owner.counters.requested("takeOver");
    const error = this.owner.refuseTakeover(this.peer) ?? "";
    sendResponse(this.connection, { response: { case: "takeOver", value: { error } } }, []);
    return error === "";
  }

  /** Answers nothing until `resume`. Returns what there is to go on with; the fds are borrowed. */
  suspend(): HandedClient {
    const { client: { name, token, users }, connection } = this;
    return {
      name,
      token,
      users: Array.from(
        users,
        ({ channel, id, claimedPid }) => ({ channelName: channel.name, id, claimedPid }),
      ),
      socket: connection.socket,
      state: connection.suspend(),
    };
  }

  resume(): void {
    this.connection.resume();
  }

  /** Closes the connection, and leaves the client's users as they are: the server stops, the clients may go on. */
  abandon(): void {
    this.client.users.clear();
    this.connection.close();
  }
}
