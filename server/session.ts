/** One client's connection: requests in, answers out, in order (specification, sections 2.1, 2.15). */

import { getLogger } from "@logtape/logtape";
import { closeAll, type Fd } from "../ffi/fd.ts";
import type { System } from "../ffi/system.ts";
import { requestCodec, sendResponse } from "../wire/client_link.ts";
import { Connection, type Incoming, ProtocolError } from "../wire/connection.ts";
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

/** A client that is connected, until its connection ends. */
export class Session {
  readonly client: Client;
  readonly connection: Connection;

  /**
   * @param socket Owned by the session from now on.
   * @param pid Of the client's process, as for `Client`.
   * @param report Makes what the server tells of its own work.
   */
  constructor(
    private readonly table: ChannelTable,
    socket: Fd,
    pid: number,
    private readonly limits: ServerLimits,
    private readonly counters: ServerCounters,
    private readonly report: () => Init<ServerReport>,
    private readonly system: System,
  ) {
    this.client = new Client(pid);
    const bounds = { frameBytesMax: limits.frameBytesMax, fdsMax: REQUEST_FDS_MAX };
    this.connection = new Connection(socket, bounds, system);
  }

  /** Answers requests until the connection ends, for whatever reason; then the client's users are removed. */
  async run(): Promise<void> {
    try {
      await this.#serve();
    } catch (error) {
      this.connection.close(error instanceof Error ? error : new Error(String(error)));
    }
    this.table.disconnect(this.client);
    this.#explainEnd();
  }

  #explainEnd(): void {
    const { failure } = this.connection;
    if (!(failure instanceof ProtocolError)) return;
    const verdict = this.counters.refusals.count(failure.reason, this.table.host.monotonicNs());
    if (!verdict.log) return;
    log.error("{reason}; closed the connection of client {name} (pid {pid}){unsaid}", {
      reason: failure.message,
      name: this.client.name,
      pid: this.client.pid,
      unsaid: unsaidText(verdict),
    });
  }

  async #serve(): Promise<void> {
    let turns = 0;
    while (true) {
      let incoming = this.connection.tryReceive(requestCodec);
      if (incoming === null) {
        turns = 0;
        incoming = await this.connection.receive(requestCodec);
        if (incoming === null) return;
      }
      this.#answer(incoming);
      if (this.#mustPause()) {
        this.counters.pauses++;
        await this.connection.drained();
      }
      if (++turns % REQUESTS_PER_TURN === 0) {
        await new Promise<void>((resolve) => this.system.after(0, resolve));
      }
    }
  }

  #mustPause(): boolean {
    const { outboundFrames, outboundBytes } = this.connection;
    // An answer with fds waits as two frames.
    return outboundFrames >= 2 * this.limits.requestsInFlightMax ||
      outboundBytes > OUTBOUND_BYTES_BEFORE_PAUSE;
  }

  #answer({ message, fds }: Incoming<Request>): void {
    const { request } = message;
    this.counters.requested(request.case ?? "unknown");
    try {
      if (request.case === "getChannelInfo" && request.value.wantReport) {
        const value = { report: this.report() };
        sendResponse(this.connection, { response: { case: "getChannelInfo", value } }, []);
        return;
      }
      const result = answer(this.table, this.client, message, fds, this.counters.refusals);
      if (result !== null) sendResponse(this.connection, { response: result.response }, result.fds);
    } finally {
      closeAll(fds);
    }
  }

  /** Closes the connection, and leaves the client's users as they are: the server stops, the clients may go on. */
  abandon(): void {
    this.client.users.clear();
    this.connection.close();
  }
}
