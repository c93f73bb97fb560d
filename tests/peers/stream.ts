/**
 * A client for tests that talks about what it does in JSON lines.
 *
 *     stream.ts publish SOCKET CHANNEL reliable|unreliable INTERVAL_MS   until its standard input ends
 *     stream.ts subscribe SOCKET CHANNEL reliable|unreliable             until killed
 *
 * A message is its sequence number (u64) and a length that differs from message to message, filled with bytes that
 * follow from the number: one that is torn is told from one that is whole.
 */

import { Client } from "../../mod.ts";

const [role, socket, channel, kind, interval] = Deno.args;
const reliable = kind === "reliable";
const HEADER_BYTES = 8;
const REPORT_MS = 20;

const say = (line: Record<string, unknown>) => console.log(JSON.stringify(line));
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const lengthOf = (sequence: number) => HEADER_BYTES + (sequence * 37) % 1000;
const fillOf = (sequence: number) => (sequence * 31 + 7) & 0xff;

async function publish(client: Client): Promise<void> {
  const publisher = await client.createPublisher(channel, { slotBytes: 1024, numSlots: 128, reliable });
  say({ ready: true });
  let stopped = false;
  new Response(Deno.stdin.readable).text().then(() => stopped = true);
  let sequence = 0;
  for (let reported = 0; !stopped; sequence++) {
    const length = lengthOf(sequence);
    let buffer = publisher.getBuffer(length);
    while (buffer === null && !stopped) {
      await publisher.wait({ timeoutMs: 100 });
      buffer = publisher.getBuffer(length);
    }
    if (buffer === null) break;
    new DataView(buffer.buffer, buffer.byteOffset).setBigUint64(0, BigInt(sequence), true);
    buffer.fill(fillOf(sequence), HEADER_BYTES, length);
    publisher.publish(length);
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
  let next = -1;
  let [received, lost, torn, last] = [0, 0, 0, 0];
  setInterval(() => say({ received, lost, torn, next, connected: client.connected }), REPORT_MS);
  for await (const message of subscriber) {
    const { data } = message;
    const sequence = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
    const whole = data.length === lengthOf(sequence) &&
      data.subarray(HEADER_BYTES).every((byte) => byte === fillOf(sequence));
    if (!whole) torn++;
    // A new publisher starts again at 0.
    else if (next >= 0 && sequence !== next && sequence !== 0) lost += Math.max(1, sequence - next);
    next = sequence + 1;
    received++;
    if (performance.now() - last > REPORT_MS) {
      last = performance.now();
      say({ received, lost, torn, next, connected: client.connected });
    }
  }
}

const client = await Client.connect({ socket, name: `stream ${role}` });
await (role === "publish" ? publish(client) : subscribe(client));
await client.close();
Deno.exit(0);
