/** Moves messages inside one process: `garbage.ts SOCKET CHANNEL publish|"publish and read"|"send and for await" COUNT`. */

import { Client } from "../../mod.ts";
import { readSequence, writeSequence } from "./payload.ts";

const [socket, channel, work] = Deno.args, count = Number(Deno.args[3]);
const BYTES = 64;

const client = await Client.connect({ socket, name: "garbage" });
const publisher = await client.createPublisher(channel, { slotBytes: BYTES, numSlots: 64, local: true });
const subscriber = await client.createSubscriber(channel);

function publish(sequence: number): void {
  writeSequence(publisher.getBuffer()!, sequence);
  publisher.publish(BYTES);
}

function read(expected: number): void {
  const message = subscriber.read()!;
  if (readSequence(message.data) !== expected) throw new Error(`message ${expected} was not read`);
  message.release();
}

async function sendAndForAwait(): Promise<void> {
  const bytes = new Uint8Array(BYTES), messages = subscriber[Symbol.asyncIterator]();
  for (let i = 0; i < count; i++) {
    writeSequence(bytes, i);
    await publisher.send(bytes);
    const { value } = await messages.next();
    if (value === undefined || readSequence(value.data) !== i) throw new Error(`message ${i} was not read`);
  }
  await messages.return();
}

if (work === "publish") { for (let i = 0; i < count; i++) publish(i); }
else if (work === "publish and read") {
  for (let i = 0; i < count; i++) {
    publish(i);
    read(i);
  }
} else await sendAndForAwait();
await client.close();
