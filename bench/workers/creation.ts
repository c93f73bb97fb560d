/**
 * Creates channels with a publisher and a subscriber each: `creation.ts SOCKET PREFIX COUNT in-turn|at-once|hold`.
 *
 * Prints how long that took, and goes; `hold`: stays until it is killed, and says when
 * another server knows all of it.
 */

import assert from "node:assert/strict";
import { Client, type Publisher, type Subscriber } from "../../mod.ts";
import { readSequence, writeSequence } from "./payload.ts";
import { nowNs } from "./stopwatch.ts";

const [socket, prefix, , way] = Deno.args, count = Number(Deno.args[2]);

const client = await Client.connect({
  socket,
  name: "creation",
  onConnectionChange(change) {
    if (change.state !== "attached") return;
    console.log(`attached, ${change.recreated.length + change.failed.length} anew`);
  },
});
const names = Array.from({ length: count }, (_, i) => `${prefix}_${i}`);

async function create(name: string): Promise<[Publisher, Subscriber]> {
  const publisher = client.createPublisher(name, { slotBytes: 64, numSlots: 8, local: true });
  if (way === "in-turn") await publisher;
  const subscriber = client.createSubscriber(name);
  return [await publisher, await subscriber];
}

const start = nowNs();
const pairs: [Publisher, Subscriber][] = [];
if (way === "in-turn") { for (const name of names) pairs.push(await create(name)); }
else pairs.push(...await Promise.all(names.map(create)));
console.log(`create_ns ${(nowNs() - start).toFixed(0)}`);

for (const [i, [publisher, subscriber]] of pairs.entries()) {
  writeSequence(publisher.getBuffer()!, i);
  publisher.publish(4);
  using message = subscriber.readNewest();
  assert.equal(readSequence(message!.data), i);
}
if (way === "hold") {
  console.log("holding");
  await new Promise(() => setInterval(() => {}, 1000));
}
await client.close();
