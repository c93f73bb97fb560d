/**
 * A client for tests that talks about what it does in JSON lines.
 *
 *     stream.ts publish SOCKET CHANNEL reliable|unreliable INTERVAL_MS [TAG]   until its standard input ends
 *     stream.ts subscribe SOCKET CHANNEL reliable|unreliable                   until killed
 *
 * A message is a number (u64: the publisher's tag above, its sequence number below), a hash of the rest (u64), and a
 * filler that follows from the number, of a length that differs from message to message: one that is torn is told from
 * one that is whole. With tag 0 it is what `peer_pub` and `peer_sub` exchange.
 */

import { Client } from "../../mod.ts";

const [role, socket, channel, kind, interval, tag = "0"] = Deno.args;
const reliable = kind === "reliable";
const HEADER_BYTES = 16;
const REPORT_MS = 20;
/** Every so many messages one is long, and longer each time: the slots have to grow. */
const LONG_EVERY = 400;
const LONG_BYTES_MAX = 60_000;

const say = (line: Record<string, unknown>) => console.log(JSON.stringify(line));
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function fillerBytes(sequence: number): number {
  if (sequence % LONG_EVERY === LONG_EVERY - 1) return Math.min(1000 + 3 * sequence, LONG_BYTES_MAX);
  return (sequence * 37) % 1000;
}

/** FNV-1a, 64 bits, in two halves: the prime is 2^40 + 0x1b3. */
function hash(bytes: Uint8Array): [low: number, high: number] {
  let [low, high] = [0x84222325, 0xcbf29ce4];
  for (const byte of bytes) {
    low = (low ^ byte) >>> 0;
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
    low = product >>> 0;
  }
  return [low, high];
}

function write(buffer: Uint8Array, sequence: number): number {
  const length = HEADER_BYTES + fillerBytes(sequence);
  const view = new DataView(buffer.buffer, buffer.byteOffset), filler = buffer.subarray(HEADER_BYTES, length);
  for (let i = 0; i < filler.length; i++) filler[i] = sequence * 31 + i;
  const [low, high] = hash(filler);
  view.setUint32(0, sequence, true);
  view.setUint32(4, Number(tag), true);
  view.setUint32(8, low, true);
  view.setUint32(12, high, true);
  return length;
}

async function publish(client: Client): Promise<void> {
  const publisher = await client.createPublisher(channel, { slotBytes: 1024, numSlots: 128, reliable });
  say({ ready: true });
  let stopped = false;
  new Response(Deno.stdin.readable).text().then(() => stopped = true);
  let sequence = 0;
  for (let reported = 0; !stopped; sequence++) {
    const bytes = HEADER_BYTES + fillerBytes(sequence);
    let buffer = publisher.getBuffer(bytes);
    while (buffer === null && !stopped) {
      await publisher.wait({ timeoutMs: 100 });
      buffer = publisher.getBuffer(bytes);
    }
    if (buffer === null) break;
    publisher.publish(write(buffer, sequence));
    await pause(Number(interval));
    if (performance.now() - reported < REPORT_MS) continue;
    reported = performance.now();
    say({ sent: sequence + 1, connected: client.connected });
  }
  say({ sent: sequence, done: true });
  publisher.close();
}

async function subscribe(client: Client): Promise<void> {
  const subscriber = await client.createSubscriber(channel, { reliable });
  say({ ready: true });
  /** The next number of each publisher, by its tag. */
  const next = new Map<number, number>();
  const counts = { received: 0, lost: 0, torn: 0, disordered: 0 };
  const report = () => say({ ...counts, connected: client.connected });
  setInterval(report, REPORT_MS);
  let last = 0;
  for await (const { data } of subscriber) {
    const view = new DataView(data.buffer, data.byteOffset);
    const sequence = view.getUint32(0, true), from = view.getUint32(4, true);
    const [low, high] = hash(data.subarray(HEADER_BYTES));
    const whole = low === view.getUint32(8, true) && high === view.getUint32(12, true);
    const expected = next.get(from) ?? sequence;
    if (!whole) counts.torn++;
    // Another publisher with the same tag starts again at 0.
    else if (sequence < expected && sequence !== 0) counts.disordered++;
    else if (sequence > expected) counts.lost += sequence - expected;
    next.set(from, sequence + 1);
    counts.received++;
    if (performance.now() - last < REPORT_MS) continue;
    last = performance.now();
    report();
  }
}

const client = await Client.connect({ socket, name: `stream ${role}` });
await (role === "publish" ? publish(client) : subscribe(client));
await client.close();
Deno.exit(0);
