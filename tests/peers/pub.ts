/** What the reference's `pub` does, with our client: publishes `hello` at a frequency, then waits for a key. */

import { Client } from "../../mod.ts";
import { parseFlags } from "./flags.ts";

const flag = parseFlags(Deno.args);
const numMessages = Number(flag("num_msgs", "1"));
const frequency = Number(flag("frequency", "0"));

await using client = await Client.connect({ socket: flag("socket", "/tmp/subspace"), name: "pub" });
const publisher = await client.createPublisher(flag("channel", "test"), {
  slotBytes: 256,
  numSlots: Number(flag("num_slots", "5")),
  reliable: flag("reliable", "false") === "true",
});
const hello = new TextEncoder().encode("hello");
for (let i = 0; i < numMessages; i++) {
  await publisher.send(hello);
  if (frequency > 0) await new Promise((resolve) => setTimeout(resolve, 1000 / frequency));
}
console.log("All messages sent, hit return to end");
await new Response(Deno.stdin.readable).text();
