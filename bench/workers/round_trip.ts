/** One side of a round trip: `round_trip.ts ping|pong SOCKET PREFIX blocking|async|spinning COUNT`. */

import { Client, type Message, type Publisher, type Subscriber } from "../../mod.ts";
import { readSequence, writeSequence } from "./payload.ts";
import { nowNs } from "./stopwatch.ts";

const [side, socket, prefix, way] = Deno.args, count = Number(Deno.args[4]);
const BYTES = 64;
const WARM_UP = 500;
/** An answer that takes longer is lost. */
const PATIENCE_MS = 10_000;

const client = await Client.connect({ socket, name: side });
const publisher = await client.createPublisher(`${prefix}_${side}`, {
  slotBytes: BYTES,
  numSlots: 32,
  local: true,
});
const subscriber = await client.createSubscriber(`${prefix}_${side === "ping" ? "pong" : "ping"}`);

function send(publisher: Publisher, sequence: number): void {
  writeSequence(publisher.getBuffer()!, sequence);
  publisher.publish(BYTES);
}

function release(message: Message): number {
  const sequence = readSequence(message.data);
  message.release();
  return sequence;
}

function receiveBlocking(subscriber: Subscriber): number {
  while (true) {
    const message = subscriber.read();
    if (message !== null) return release(message);
    if (!subscriber.waitSync({ timeoutMs: PATIENCE_MS })) throw new Error("no message came");
  }
}

async function receiveAsync(subscriber: Subscriber): Promise<number> {
  while (true) {
    const message = subscriber.read();
    if (message !== null) return release(message);
    if (!await subscriber.wait({ timeoutMs: PATIENCE_MS })) throw new Error("no message came");
  }
}

function receiveSpinning(subscriber: Subscriber): number {
  const deadline = performance.now() + PATIENCE_MS;
  while (performance.now() < deadline) {
    for (let i = 0; i < 100_000; i++) {
      const message = subscriber.read();
      if (message !== null) return release(message);
    }
  }
  throw new Error("no message came");
}

const receive = { blocking: receiveBlocking, async: receiveAsync, spinning: receiveSpinning }[way]!;

async function ping(): Promise<void> {
  const times: number[] = [];
  // The other side may subscribe later: it is there when it answers.
  while (publisher.numSubscribers === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  for (let sequence = 1; sequence <= WARM_UP + count; sequence++) {
    const start = nowNs();
    send(publisher, sequence);
    let answer = receive(subscriber);
    if (typeof answer !== "number") answer = await answer;
    times.push(nowNs() - start);
    if (answer !== sequence) throw new Error(`answer ${answer} to ${sequence}`);
  }
  const sorted = times.slice(WARM_UP).sort((a, b) => a - b);
  const us = (part: number) => (sorted[Math.floor(sorted.length * part)] / 1000).toFixed(3);
  console.log(`ping_${way} p50 ${us(0.5)} p99 ${us(0.99)} us`);
}

async function pong(): Promise<void> {
  for (let i = 0; i < WARM_UP + count; i++) {
    let sequence = receive(subscriber);
    if (typeof sequence !== "number") sequence = await sequence;
    send(publisher, sequence); // and stays, for whoever reads it when this process is gone
  }
}

await (side === "ping" ? ping() : pong());
await client.close();
