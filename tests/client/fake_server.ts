/** A server that answers what a test tells it to. */

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { reactor, Ready, type Watch } from "../../ffi/reactor.ts";
import { accept, listenAbstract } from "../../ffi/unix_socket.ts";
import { type Request, ResponseSchema } from "../../proto/subspace_pb.ts";
import { Scb } from "../../shm/layout.ts";
import { requestCodec } from "../../wire/client_link.ts";
import { Connection } from "../../wire/connection.ts";
import { uniqueSocket } from "../program.ts";

/** An answer; its fds are closed once they are sent. */
export interface FakeAnswer {
  readonly response: MessageInitShape<typeof ResponseSchema>["response"];
  readonly fds?: Fd[];
}

/** What to do about a request. null: nothing, for ever. */
export type Script = (request: Request["request"], connection: Connection) => FakeAnswer | null;

/** Answers `Init` as a server would. */
export function greeting(sessionId = 1n): FakeAnswer {
  return {
    response: { case: "init", value: { sessionId, scbFdIndex: 0, userId: 0, groupId: 0 } },
    fds: [createMemory("scb", Scb.bytes)],
  };
}

/** Listens, and answers by a script; all requests are kept. */
export class FakeServer implements Disposable {
  readonly requests: Request["request"][] = [];
  readonly connections: Connection[] = [];
  readonly #listener: Fd;
  readonly #watch: Watch;

  constructor(readonly script: Script, readonly socket = uniqueSocket("fake")) {
    this.#listener = listenAbstract(socket);
    this.#watch = reactor().watch(this.#listener, Ready.readable, () => this.#accept());
  }

  #accept(): void {
    for (let socket = accept(this.#listener); socket !== null; socket = accept(this.#listener)) {
      const connection = new Connection(socket);
      this.connections.push(connection);
      this.#serve(connection);
    }
  }

  async #serve(connection: Connection): Promise<void> {
    while (true) {
      const incoming = await connection.receive(requestCodec);
      if (incoming === null) return;
      closeAll(incoming.fds);
      this.requests.push(incoming.message.request);
      const answer = this.script(incoming.message.request, connection);
      if (answer !== null) FakeServer.send(connection, answer);
    }
  }

  static send(connection: Connection, { response, fds = [] }: FakeAnswer): void {
    connection.send(toBinary(ResponseSchema, create(ResponseSchema, { response: response! })), fds);
    closeAll(fds);
  }

  [Symbol.dispose](): void {
    this.#watch.close();
    this.#listener.close();
    for (const connection of this.connections) connection.close();
  }
}
