/** One side of a round trip: `round_trip.ts ping|pong SOCKET PREFIX blocking|async|spinning COUNT`. */

import type { Message, Publisher, Subscriber } from "../../mod.ts";
import { connect } from "./connection.ts";
import { readSequence, writeSequence } from "./payload.ts";
import { nowNs } from "./stopwatch.ts";

const [side, socket, prefix, way] = Deno.args, count = Number(Deno.args[4]);
const BYTES = 64;
/** Rounds that do not count: the code is compiled meanwhile. */
const WARM_UP_MS = 500;
/** Tells the other side that it was the last one. */
const END = 0xffff_ffff;
/** An answer that takes longer is lost. */
const PATIENCE_MS = 10_000;

const client = await connect(socket, side);
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
  while (publisher.numSubscribers === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const times = new Float64Array(count), warm = nowNs() + WARM_UP_MS * 1e6;
  for (let sequence = 1, counted = 0, last = false; !last;) {
    last = counted === count;
    const sent = last ? END : sequence++, start = nowNs();
    send(publisher, sent);
    let answer = receive(subscriber);
    if (typeof answer !== "number") answer = await answer;
    if (answer !== sent) throw new Error(`answer ${answer} to ${sent}`);
    if (start >= warm && !last) times[counted++] = nowNs() - start;
  }
  times.sort();
  const us = (part: number) => (times[Math.floor(count * part)] / 1000).toFixed(3);
  console.log(`ping_${way} p50 ${us(0.5)} p99 ${us(0.99)} us`);
}

async function pong(): Promise<void> {
  for (let sequence = 0; sequence !== END;) {
    const received = receive(subscriber);
    sequence = typeof received === "number" ? received : await received;
    send(publisher, sequence); // and stays, for whoever reads it when this process is gone
  }
}

await (side === "ping" ? ping() : pong());
await client.close();
