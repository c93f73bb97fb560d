/** Moves messages inside one process in one way, so that its garbage can be counted: `garbage.ts SOCKET CHANNEL WAY COUNT`. */

import type { Codec } from "../../mod.ts";
import { connect } from "./connection.ts";
import { readSequence, writeSequence } from "./payload.ts";

const [socket, channel, way] = Deno.args, count = Number(Deno.args[3]);
const BYTES = 64;

/** Values that are made once: what is counted is not the user's. */
const reading = { sequence: 0 };
const scratch = new Uint8Array(BYTES);
const codec: Codec<typeof reading> = {
  encode(value) {
    writeSequence(scratch, value.sequence);
    return scratch;
  },
  decode(bytes) {
    reading.sequence = readSequence(bytes);
    return reading;
  },
};

const client = await connect(socket, "garbage");
const publisher = await client.createPublisher(channel, {
  slotBytes: BYTES,
  numSlots: 64,
  local: true,
  codec,
});
const subscriber = await client.createSubscriber(channel, { codec });

function publish(sequence: number): void {
  writeSequence(publisher.getBuffer()!, sequence);
  publisher.publish(BYTES);
}

function check(message: { data: Uint8Array; release(): void } | null, sequence: number): void {
  if (message === null || readSequence(message.data) !== sequence) {
    throw new Error(`message ${sequence} was not read`);
  }
  message.release();
}

/** What is done with each message, by the name of the way. */
const ways: Record<string, (sequence: number) => void> = {
  publish,
  "publish and read"(sequence) {
    publish(sequence);
    check(subscriber.read(), sequence);
  },
  "publish and read the newest"(sequence) {
    publish(sequence);
    check(subscriber.readNewest(), sequence);
  },
  "publish, waitSync and read"(sequence) {
    publish(sequence);
    if (!subscriber.waitSync()) throw new Error("the wait was in vain");
    check(subscriber.read(), sequence);
  },
  "publish and read values"(sequence) {
    reading.sequence = sequence;
    publisher.publishValue(reading);
    const message = subscriber.read()!;
    if (message.value.sequence !== sequence) throw new Error(`message ${sequence} was not read`);
    message.release();
  },
  "publish leases, and read"(sequence) {
    const lease = publisher.lease()!;
    writeSequence(lease.buffer, sequence);
    lease.publish(BYTES);
    check(subscriber.read(), sequence);
  },
};

async function sendAndForAwait(): Promise<void> {
  const bytes = new Uint8Array(BYTES), messages = subscriber[Symbol.asyncIterator]();
  for (let i = 0; i < count; i++) {
    writeSequence(bytes, i);
    await publisher.send(bytes);
    const { value } = await messages.next();
    check(value ?? null, i);
  }
  await messages.return();
}

/** As many messages at a time as a program finds that is woken now and then. */
const BACKLOG = 32;

async function forAwait(): Promise<void> {
  const publishBacklog = (first: number) => {
    for (let i = 0; i < BACKLOG; i++) publish(first + i);
  };
  let received = 0;
  publishBacklog(0);
  for await (const message of subscriber) {
    if (readSequence(message.data) !== received) throw new Error(`message ${received} was not read`);
    if (++received >= count) break;
    if (received % BACKLOG === 0) publishBacklog(received);
  }
}

const move = ways[way];
if (move !== undefined) { for (let i = 0; i < count; i++) move(i); }
else if (way === "for await, backlog of 32") await forAwait();
else await sendAndForAwait();
await client.close();
