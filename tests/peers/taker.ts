/**
 * A server that asks another one to hand over, and stops answering at a certain moment: `--stop=offered` before it takes
 * the baton, `--stop=taken` behind that. With `--stop=served` it takes the fence too when a line comes on stdin, and says
 * that it serves.
 */

import { drain } from "../../ffi/eventfd.ts";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { responseCodec, sendRequest } from "../../wire/client_link.ts";
import { Connection } from "../../wire/connection.ts";
import { handOverCodec, sendPart } from "../../wire/hand_over.ts";
import { receiveDump } from "../../wire/state_dump.ts";
import { parseFlags } from "./flags.ts";

const flag = parseFlags(Deno.args);
const connection = new Connection(connectAbstract(flag("socket", "")), { frameBytesMax: 1 << 28 });
sendRequest(connection, { request: { case: "takeOver", value: {} } });
await connection.receive(responseCodec);
await receiveDump(connection);
while (true) {
  const { message: { part }, fds } = (await connection.receive(handOverCodec))!;
  if (part.case !== "server") continue;
  const stop = flag("stop", "offered");
  const taken = stop !== "offered" && drain(fds[1].number);
  console.log(taken ? "taken" : "offered");
  if (stop === "served") {
    await Deno.stdin.read(new Uint8Array(1));
    console.log(drain(fds[2].number) ? "served" : "too late");
    sendPart(connection, { case: "taken", value: {} });
  }
  await connection.receive(handOverCodec);
  // The other server has ended it: is there anything left to take?
  console.log(drain(fds[1].number) ? "the baton is here" : "the baton is gone");
  break;
}
