/**
 * One end of a reliable stream: `stream.ts publish|subscribe SOCKET CHANNEL BYTES SLOTS COUNT whole|touched
 * blocking|async`. The subscriber prints the time of all messages but the first tenth, while code is compiled.
 */

import type { Message, Publisher, Subscriber } from "../../mod.ts";
import { connect } from "./connection.ts";
import { readSequence, writeSequence } from "./payload.ts";
import { nowNs } from "./stopwatch.ts";
import { sum } from "./sum.ts";

const [side, socket, channel] = Deno.args;
const [bytes, numSlots, count] = Deno.args.slice(3, 6).map(Number);
const [payload, way] = Deno.args.slice(6);
const whole = payload === "whole";
const warmUp = Math.floor(count / 10);

function write(buffer: Uint8Array, sequence: number): void {
  if (whole) buffer.fill(sequence & 0xff, 0, bytes);
  writeSequence(buffer, sequence);
}

/** As all but the first word are the same, the sum tells. The number of bytes is a multiple of four. */
function expectedSum(sequence: number): number {
  return sequence + Math.imul(Math.imul(sequence & 0xff, 0x01010101), bytes / 4 - 1) | 0;
}

function check(message: Message, expected: number): void {
  const { data } = message;
  if (data.length !== bytes || readSequence(data) !== expected) {
    throw new Error(`message ${expected} is wrong`);
  }
  if (whole && sum(message.address, bytes) !== expectedSum(expected)) {
    throw new Error(`message ${expected} is torn`);
  }
}

function publishBlocking(publisher: Publisher): void {
  for (let sequence = 0; sequence < count; sequence++) {
    let buffer = publisher.getBuffer();
    while (buffer === null) {
      publisher.waitSync();
      buffer = publisher.getBuffer();
    }
    write(buffer, sequence);
    publisher.publish(bytes);
  }
}

async function publishAsync(publisher: Publisher): Promise<void> {
  const message = new Uint8Array(bytes);
  for (let sequence = 0; sequence < count; sequence++) {
    write(message, sequence);
    await publisher.send(message);
  }
}

function subscribeBlocking(subscriber: Subscriber): number {
  let start = 0;
  for (let received = 0; received < count;) {
    const message = subscriber.read();
    if (message === null) {
      subscriber.waitSync();
      continue;
    }
    if (received === warmUp) start = nowNs();
    check(message, received++);
    message.release();
  }
  return nowNs() - start;
}

async function subscribeAsync(subscriber: Subscriber): Promise<number> {
  let start = 0, received = 0;
  for await (const message of subscriber) {
    if (received === warmUp) start = nowNs();
    check(message, received++);
    if (received === count) break;
  }
  return nowNs() - start;
}

const client = await connect(socket, `${side} ${bytes}`);
if (side === "publish") {
  const publisher = await client.createPublisher(channel, {
    slotBytes: bytes,
    numSlots,
    reliable: true,
    local: true,
  });
  await (way === "async" ? publishAsync(publisher) : publishBlocking(publisher));
  // Until it has read all.
  while (publisher.numSubscribers > 0) await new Promise((resolve) => setTimeout(resolve, 1));
} else {
  const subscriber = await client.createSubscriber(channel, { reliable: true });
  const ns = await (way === "async" ? subscribeAsync(subscriber) : subscribeBlocking(subscriber));
  console.log(`ns_per_message ${(ns / (count - warmUp)).toFixed(1)}`);
}
await client.close();
