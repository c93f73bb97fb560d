/** A server that hands over a session without channels, and then does not let go of it. */

import { createEventFd, signal } from "../../ffi/eventfd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { reactor, Ready } from "../../ffi/reactor.ts";
import { accept, listenAbstract } from "../../ffi/unix_socket.ts";
import { requestCodec, sendResponse } from "../../wire/client_link.ts";
import { Connection } from "../../wire/connection.ts";
import { sendPart } from "../../wire/hand_over.ts";
import { sendDump } from "../../wire/state_dump.ts";
import { parseFlags } from "./flags.ts";

const flag = parseFlags(Deno.args);
const listener = listenAbstract(flag("socket", ""));
const tokens = [createEventFd(), createEventFd()];
for (const { number } of tokens) signal(number);
const watch = reactor().watch(listener, Ready.readable, async () => {
  watch.close();
  const connection = new Connection(accept(listener)!);
  await connection.receive(requestCodec);
  sendResponse(connection, { response: { case: "takeOver", value: { error: "" } } }, []);
  await sendDump(connection, { sessionId: 7n, scb: createMemory("scb", 14336), channels: new Map() }, 1000);
  const standalone = flag("standalone", "false") === "true";
  sendPart(connection, { case: "server", value: { standalone } }, [listener, ...tokens]);
});
console.log("listens");
