/** One client's connection: requests in, answers out, in order (specification, sections 2.1, 2.15). */

import { getLogger } from "@logtape/logtape";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { peerCredentials } from "../ffi/unix_socket.ts";
import { requestCodec, sendResponse } from "../wire/client_link.ts";
import { Connection, type Incoming, ProtocolError } from "../wire/connection.ts";
import type { Request } from "../proto/subspace_pb.ts";
import type { ChannelTable } from "./channel_table.ts";
import { answer } from "./requests.ts";
import { Client } from "./users.ts";

const log = getLogger(["subspace", "server"]);

/** What may wait to be sent to a client before its next request has to wait too. */
const OUTBOUND_BYTES_BEFORE_PAUSE = 256 * 1024;
/** Requests that one client may have answered before all others get their turn. */
const REQUESTS_PER_TURN = 64;

/** Bounds of a client's connection. A registration carries one fd; requests are small. */
const LIMITS = { frameBytesMax: 1024 * 1024, fdsMax: 16 };

/** A client that is connected, until its connection ends. */
export class Session {
  readonly client: Client;
  readonly #connection: Connection;

  /** @param socket Owned by the session from now on. */
  constructor(private readonly table: ChannelTable, socket: Fd) {
    this.client = new Client(pidOf(socket));
    this.#connection = new Connection(socket, LIMITS);
  }

  /** Answers requests until the connection ends, for whatever reason; then the client's users are removed. */
  async run(): Promise<void> {
    try {
      await this.#serve();
    } catch (error) {
      this.#connection.close(error instanceof Error ? error : new Error(String(error)));
    }
    this.table.disconnect(this.client);
    const { failure } = this.#connection;
    if (failure instanceof ProtocolError) {
      log.error("{reason}; closed the connection of client {name} (pid {pid})", {
        reason: failure.message,
        name: this.client.name,
        pid: this.client.pid,
      });
    }
  }

  async #serve(): Promise<void> {
    let turns = 0;
    while (true) {
      let incoming = this.#connection.tryReceive(requestCodec);
      if (incoming === null) {
        turns = 0;
        incoming = await this.#connection.receive(requestCodec);
        if (incoming === null) return;
      }
      this.#answer(incoming);
      if (this.#connection.outboundBytes > OUTBOUND_BYTES_BEFORE_PAUSE) await this.#connection.drained();
      if (++turns % REQUESTS_PER_TURN === 0) await new Promise((resolve) => setTimeout(resolve));
    }
  }

  #answer({ message, fds }: Incoming<Request>): void {
    try {
      const result = answer(this.table, this.client, message, fds);
      if (result !== null) sendResponse(this.#connection, { response: result.response }, result.fds);
    } finally {
      closeAll(fds);
    }
  }

  /** Closes the connection, and leaves the client's users as they are: the server stops, the clients may go on. */
  abandon(): void {
    this.client.users.clear();
    this.#connection.close();
  }
}

/** 0 where the kernel does not say, or the process is in a pid namespace that cannot be seen from here. */
function pidOf(socket: Fd): number {
  try {
    return peerCredentials(socket).pid;
  } catch {
    return 0;
  }
}
