/** Who listens on a socket and has what was recorded: a shadow of the reference's, or one of ours. */

import { Shadow } from "../../shadow/shadow.ts";
import { type EventInit, Peer as ServerPeer, until } from "../shadow/peer.ts";
import { receiveHeader } from "../../wire/state_dump.ts";
import { replicationSocket } from "../../wire/position.ts";
import { uniqueSocket } from "../program.ts";
import { Peer } from "./peer.ts";
import type { RecordedShadow } from "./recorded_shadow.ts";

/** A shadow that listens. */
export interface Listening extends Disposable {
  readonly socket: string;
}

/** The reference's, as far as it can be told from outside: it sends what was recorded. */
export function referenceShadow(recorded: RecordedShadow): Promise<Listening> {
  return Promise.resolve(new Peer((connection) => recorded.send(connection, recorded.live)));
}

/**
 * One of ours, to which a server has sent what was recorded, and is still connected.
 *
 * @param serverSocket Where that says that it listens.
 */
export async function ownShadow(
  recorded: RecordedShadow,
  serverSocket = "/nowhere",
): Promise<Listening & { shadow: Shadow }> {
  const socket = uniqueSocket("shadow");
  using stack = new DisposableStack();
  const shadow = stack.use(Shadow.start({ socket }));
  stack.use(await fill(shadow, socket, recorded, recorded.sessionId, serverSocket));
  const resources = stack.move();
  return { socket, shadow, [Symbol.dispose]: () => resources.dispose() };
}

/** One of ours that keeps the recorded state aside: another session has begun since, and its server has gone. */
export async function shadowWithAside(recorded: RecordedShadow): Promise<Listening & { shadow: Shadow }> {
  const socket = uniqueSocket("shadow"), shadow = Shadow.start({ socket });
  for (const sessionId of [recorded.sessionId, recorded.sessionId + 1n]) {
    using _server = await fill(shadow, socket, recorded, sessionId);
  }
  await until("its server is gone", () => shadow.connections === 0);
  return { socket, shadow, [Symbol.dispose]: () => shadow.stop() };
}

/** What a server does that has begun a session. */
async function fill(
  shadow: Shadow,
  socket: string,
  recorded: RecordedShadow,
  sessionId: bigint,
  serverSocket = "/nowhere",
): Promise<ServerPeer> {
  const server = new ServerPeer(replicationSocket(socket));
  await receiveHeader(server.connection);
  const init: EventInit = {
    case: "init",
    value: { sessionId, generation: sessionId, syncReason: "new", serverSocket },
  };
  server.send(init, [recorded.scb.fd]);
  recorded.send(server.connection, recorded.live.filter(({ event }) => !/^state/.test(event.case!)));
  server.send({ case: "stateComplete", value: {} });
  await until("the state is whole", () => shadow.position.complete && shadow.state.sessionId === sessionId);
  return server;
}
