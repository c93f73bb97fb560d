/**
 * Publishes and reads in one process: `one_process.ts SOCKET PREFIX COUNT SLOTS`.
 *
 * Prints, in nanoseconds a message, the medians of three rounds after one to warm up.
 */

import type { Publisher, Subscriber } from "../../mod.ts";
import { median } from "../benchmark.ts";
import { connect } from "./connection.ts";
import { readSequence, writeSequence } from "./payload.ts";
import { nowNs } from "./stopwatch.ts";

const [socket, prefix] = Deno.args, [count, numSlots] = Deno.args.slice(2).map(Number);
const BYTES = 64;
const BACKLOG = 32;
const ROUNDS = 3;

const client = await connect(socket, "one process");
let sequence = 0;

async function channel(name: string, numSubscribers: number): Promise<[Publisher, Subscriber]> {
  const channel = `${prefix}_${name}`;
  const publisher = await client.createPublisher(channel, { slotBytes: BYTES, numSlots, local: true });
  const subscribers = [];
  for (let i = 0; i < numSubscribers; i++) subscribers.push(await client.createSubscriber(channel));
  return [publisher, subscribers[0]];
}

function publish(publisher: Publisher): void {
  writeSequence(publisher.getBuffer()!, ++sequence);
  publisher.publish(BYTES);
}

function check(message: { data: Uint8Array } | null, expected: number): void {
  if (message !== null && message.data.length === BYTES && readSequence(message.data) === expected) return;
  throw new Error(`message ${expected} was not read`);
}

function publishing(publisher: Publisher, count: number): number {
  const start = nowNs();
  for (let i = 0; i < count; i++) publish(publisher);
  return (nowNs() - start) / count;
}

function publishingAndReading(publisher: Publisher, subscriber: Subscriber): number {
  const start = nowNs();
  for (let i = 0; i < count; i++) {
    publish(publisher);
    const message = subscriber.read();
    check(message, sequence);
    message!.release();
  }
  return (nowNs() - start) / count;
}

function publishingAndDraining(publisher: Publisher, subscriber: Subscriber): number {
  const start = nowNs();
  for (let i = 0; i < count; i++) {
    publish(publisher);
    for (let message = subscriber.read(); message !== null; message = subscriber.read()) message.release();
  }
  return (nowNs() - start) / count;
}

function readingBacklog(publisher: Publisher, subscriber: Subscriber): number {
  const repeats = Math.max(1, Math.floor(count / BACKLOG));
  let total = 0;
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (let i = 0; i < BACKLOG; i++) publish(publisher);
    const start = nowNs();
    for (let i = 0; i < BACKLOG; i++) subscriber.read()!.release();
    total += nowNs() - start;
    if (subscriber.read() !== null) throw new Error("the backlog is longer than it was made");
  }
  return total / (repeats * BACKLOG);
}

const fans = [];
for (const size of [1, 10, 100]) fans.push({ size, publisher: (await channel(`fan${size}`, size))[0] });
const [near, nearReader] = await channel("near", 1);
const [far, farReader] = await channel("far", 1);

const figures = new Map<string, number[]>();
function note(name: string, ns: number, round: number): void {
  if (round >= 0) figures.set(name, [...figures.get(name) ?? [], ns]);
}

for (let round = -1; round < ROUNDS; round++) {
  for (const { size, publisher } of fans) {
    note(`publish_64_subs${size}`, publishing(publisher, size < 100 ? count : count / 10), round);
  }
  note("publish_read_64", publishingAndReading(near, nearReader), round);
  note("publish_read_drain_64", publishingAndDraining(near, nearReader), round);
  note("read_release_backlog32_64", readingBacklog(far, farReader), round);
  await new Promise((resolve) => setTimeout(resolve));
}
for (const [name, values] of figures) console.log(`${name} ${median(values).toFixed(1)}`);
await client.close();
