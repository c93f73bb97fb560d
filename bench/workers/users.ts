/**
 * Keeps channels in use: `users.ts SOCKET PREFIX CHANNELS SUBSCRIBERS HZ`. Each has a publisher, so many subscribers in
 * this process, and a message HZ times a second. Stays until it is killed.
 */

import { Client } from "../../mod.ts";

const [socket, prefix] = Deno.args, [channels, subscribers, hz] = Deno.args.slice(2).map(Number);

const client = await Client.connect({ socket, name: "users" });
const names = Array.from({ length: channels }, (_, i) => `${prefix}${i}`);
const publishers = await Promise.all(
  names.map((name) => client.createPublisher(name, { slotBytes: 64, numSlots: 8 })),
);
const readers = await Promise.all(
  names.flatMap((name) => Array.from({ length: subscribers }, () => client.createSubscriber(name))),
);
console.log("ready");
const message = new Uint8Array(64);
setInterval(() => {
  for (const publisher of publishers) publisher.publish(message);
  for (const reader of readers) reader.processAll(() => {});
}, 1000 / hz);
