/** Whoever a test wants to listen on a socket. */

import { reactor, Ready } from "../../ffi/reactor.ts";
import { accept, listenAbstract } from "../../ffi/unix_socket.ts";
import { Connection } from "../../wire/connection.ts";
import { uniqueSocket } from "../program.ts";

/** Somebody who listens, and what is done with each connection. */
export class Peer implements Disposable {
  readonly socket = uniqueSocket("peer");
  readonly #listener = listenAbstract(this.socket);
  readonly #connections: Connection[] = [];
  readonly #watch = reactor().watch(this.#listener, Ready.readable, () => {
    for (let fd = accept(this.#listener); fd !== null; fd = accept(this.#listener)) {
      const connection = new Connection(fd);
      this.#connections.push(connection);
      this.serve(connection, this.#connections.length - 1);
    }
  });

  constructor(private readonly serve: (connection: Connection, index: number) => void) {}

  get connections(): number {
    return this.#connections.length;
  }

  [Symbol.dispose](): void {
    this.#watch.close();
    this.#listener.close();
    for (const connection of this.#connections) connection.close();
  }
}
