/** What the other workers do, with Deno's own unix sockets: `unix_socket.ts receive|send|ping|pong PATH BYTES COUNT`. */

import { readSequence, writeSequence } from "./payload.ts";
import { nowNs } from "./stopwatch.ts";

const [role, path] = Deno.args, [bytes, count] = Deno.args.slice(2).map(Number);
/** Read at a time, where messages are smaller. */
const CHUNK_BYTES = 65536;

async function connected(): Promise<Deno.UnixConn> {
  if (role === "receive" || role === "ping") {
    using listener = Deno.listen({ transport: "unix", path });
    return await listener.accept();
  }
  while (true) {
    try {
      return await Deno.connect({ transport: "unix", path });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.ConnectionRefused)) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

async function write(message: Uint8Array): Promise<void> {
  for (let written = 0; written < message.length;) written += await socket.write(message.subarray(written));
}

const received = new Uint8Array(Math.max(bytes, CHUNK_BYTES));
let filled = 0, taken = 0;

/** The next message; the same bytes until the next call. */
async function read(): Promise<Uint8Array> {
  while (filled - taken < bytes) {
    received.copyWithin(0, taken, filled);
    [filled, taken] = [filled - taken, 0];
    const more = await socket.read(received.subarray(filled));
    if (more === null) throw new Error("the other side has hung up");
    filled += more;
  }
  taken += bytes;
  return received.subarray(taken - bytes, taken);
}

async function send(): Promise<void> {
  const message = new Uint8Array(bytes);
  for (let i = 0; i < count; i++) {
    writeSequence(message, i);
    await write(message);
  }
}

async function receive(): Promise<number> {
  const warmUp = Math.floor(count / 10);
  let start = 0;
  for (let i = 0; i < count; i++) {
    const message = await read();
    if (i === warmUp) start = nowNs();
    if (readSequence(message) !== i) throw new Error(`message ${i} is wrong`);
  }
  return (nowNs() - start) / (count - warmUp);
}

async function ping(): Promise<number> {
  const message = new Uint8Array(bytes), times = new Float64Array(count);
  for (let i = -Math.floor(count / 4); i < count; i++) {
    const start = nowNs();
    writeSequence(message, i);
    await write(message);
    await read();
    if (i >= 0) times[i] = nowNs() - start;
  }
  return times.sort()[count >> 1];
}

async function pong(): Promise<void> {
  for (let i = -Math.floor(count / 4); i < count; i++) await write(await read());
}

using socket = await connected();
const ns = await { send, receive, ping, pong }[role]!();
if (ns !== undefined) console.log(`ns_per_message ${ns.toFixed(1)}`);
