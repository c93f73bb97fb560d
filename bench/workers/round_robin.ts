/**
 * Publishes and reads on many channels by turns: `round_robin.ts SOCKET PREFIX CHANNELS COUNT SLOTS`.
 *
 * Prints, in nanoseconds a message, the median of three rounds after one to warm up.
 */

import type { Publisher, Subscriber } from "../../mod.ts";
import { median } from "../benchmark.ts";
import { connect } from "./connection.ts";
import { readSequence, writeSequence } from "./payload.ts";
import { nowNs } from "./stopwatch.ts";

const [socket, prefix] = Deno.args, [numChannels, count, numSlots] = Deno.args.slice(2).map(Number);
const BYTES = 64;
const ROUNDS = 3;

const client = await connect(socket, "round robin");
const publishers: Publisher[] = [], subscribers: Subscriber[] = [];
for (let i = 0; i < numChannels; i++) {
  const options = { slotBytes: BYTES, numSlots, local: true };
  publishers.push(await client.createPublisher(`${prefix}_${i}`, options));
  subscribers.push(await client.createSubscriber(`${prefix}_${i}`));
}
let sequence = 0;

function publishAndRead(publisher: Publisher, subscriber: Subscriber): void {
  writeSequence(publisher.getBuffer()!, ++sequence);
  publisher.publish(BYTES);
  const message = subscriber.read();
  if (message === null || readSequence(message.data) !== sequence) {
    throw new Error(`message ${sequence} was not read`);
  }
  message.release();
}

function play(): number {
  const start = nowNs();
  for (let i = 0, channel = 0; i < count; i++) {
    publishAndRead(publishers[channel], subscribers[channel]);
    if (++channel === numChannels) channel = 0;
  }
  return (nowNs() - start) / count;
}

const figures = [];
for (let round = -1; round < ROUNDS; round++) {
  const ns = play();
  if (round >= 0) figures.push(ns);
  await new Promise((resolve) => setTimeout(resolve));
}
console.log(`round_robin ${median(figures).toFixed(1)}`);
await client.close();
