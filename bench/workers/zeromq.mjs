/**
 * What the other workers do, with ZeroMQ over ipc, for Node: `zeromq.mjs receive|send|ping|pong PATH BYTES COUNT`.
 */

import { Pair, Pull, Push } from "zeromq";

const [role, path] = process.argv.slice(2), [bytes, count] = process.argv.slice(4).map(Number);
const address = `ipc://${path}`;
/** Messages that may wait to be sent, and to be received: as many as the channel of ours has slots. */
const HIGH_WATER_MARK = 32;
/** Messages are not copied, so a buffer is used again only when its message has long gone. */
const NUM_BUFFERS = 8 * HIGH_WATER_MARK;

const nowNs = () => Number(process.hrtime.bigint());

async function send() {
  const socket = new Push({ sendHighWaterMark: HIGH_WATER_MARK });
  socket.connect(address);
  const buffers = Array.from({ length: NUM_BUFFERS }, () => Buffer.alloc(bytes));
  for (let i = 0; i < count; i++) {
    const message = buffers[i % NUM_BUFFERS];
    message.writeUInt32LE(i);
    await socket.send(message);
  }
  await untilKilled();
}

async function receive() {
  const socket = new Pull({ receiveHighWaterMark: HIGH_WATER_MARK });
  await socket.bind(address);
  const warmUp = Math.floor(count / 10);
  let start = 0;
  for (let i = 0; i < count; i++) {
    const [message] = await socket.receive();
    if (i === warmUp) start = nowNs();
    if (message.readUInt32LE() !== i) throw new Error(`message ${i} is wrong`);
  }
  return (nowNs() - start) / (count - warmUp);
}

async function ping() {
  const socket = new Pair();
  await socket.bind(address);
  const times = new Float64Array(count);
  for (let i = -Math.floor(count / 4); i < count; i++) {
    const message = Buffer.alloc(bytes), start = nowNs();
    await socket.send(message);
    await socket.receive();
    if (i >= 0) times[i] = nowNs() - start;
  }
  return times.sort()[count >> 1];
}

async function pong() {
  const socket = new Pair();
  socket.connect(address);
  for (let i = -Math.floor(count / 4); i < count; i++) await socket.send(await socket.receive());
  await untilKilled();
}

/** What waits to be sent is lost when the process ends. */
function untilKilled() {
  return new Promise(() => setInterval(() => {}, 1000));
}

console.log(`ns_per_message ${(await { send, receive, ping, pong }[role]()).toFixed(1)}`);
process.exit();
