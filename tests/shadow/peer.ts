/** The other end of a shadow's socket, and what its events are made of. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { createEventFd } from "../../ffi/eventfd.ts";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { createPacketPipe } from "../../ffi/pipe.ts";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { type ShadowEvent, ShadowEventSchema } from "../../proto/subspace_pb.ts";
import { Connection } from "../../wire/connection.ts";
import { fdCount, sendEvent } from "../../wire/shadow_link.ts";
import { closeDump, receiveDump, type StateDump } from "../../wire/state_dump.ts";
import { PATIENCE_MS } from "../program.ts";

export type EventInit = NonNullable<MessageInitShape<typeof ShadowEventSchema>["event"]>;

/** An event, complete. */
export function event(init: EventInit): ShadowEvent {
  return create(ShadowEventSchema, { event: init });
}

/** Fds of the kinds that belong to an event. */
export function fdsFor(init: EventInit): Fd[] {
  switch (init.case) {
    case "init":
      return [createMemory("scb", 14336)];
    case "createChannel":
      return [createMemory("ccb", 35456), createMemory("bcb", 12288)];
    case "addPublisher":
      return [createEventFd(), createEventFd(), ...(init.value!.notifyRetirement ? createPacketPipe() : [])];
    default:
      return Array.from({ length: fdCount(event(init)) }, () => createEventFd());
  }
}

/** Waits until something holds. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`still not so: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** A server as a shadow sees it. */
export class Peer implements Disposable {
  readonly connection: Connection;

  constructor(socket: string) {
    this.connection = new Connection(connectAbstract(socket));
  }

  /** Connects, takes the dump and begins a session. */
  static async writing(socket: string, sessionId: bigint): Promise<Peer> {
    const peer = new Peer(socket);
    closeDump(await peer.dump());
    peer.send({ case: "init", value: { sessionId } });
    return peer;
  }

  /** Takes the dump, which the caller owns. */
  dump(): Promise<StateDump> {
    return receiveDump(this.connection);
  }

  /** Sends an event, with fds of its own or with fresh ones. */
  send(init: EventInit, fds?: readonly Fd[]): void {
    const fresh = fds === undefined ? fdsFor(init) : [];
    sendEvent(this.connection, { event: init }, fds ?? fresh);
    closeAll(fresh);
  }

  [Symbol.dispose](): void {
    this.connection.close();
  }
}
