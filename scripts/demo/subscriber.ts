/** A subscriber of the demo: checks the sequence of one channel and computes something from it, until it is killed. */

import { Client } from "../../mod.ts";
import { say, SEQUENCE_BYTES, sources } from "./telemetry.ts";

const REPORT_MS = 20;
const READING_MS = 250;

const [socket, channel] = Deno.args;
const { reliable, describe } = sources.find((source) => source.channel === channel)!;
const client = await Client.connect({
  socket,
  name: `${channel} subscriber`,
  onConnectionChange: ({ state }) => say({ connection: state }),
});
const subscriber = await client.createSubscriber(channel, { reliable });
say({ ready: true });

let [received, lost, next] = [0, 0, 0];
let [reading, before, beforeMs] = ["", "", 0];
setInterval(() => say({ received, lost, reading }), REPORT_MS);

for await (const { data } of subscriber) {
  const sequence = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
  lost += sequence - next;
  next = sequence + 1;
  received++;
  const nowMs = performance.now();
  if (nowMs - beforeMs < READING_MS) continue;
  const text = new TextDecoder().decode(data.subarray(SEQUENCE_BYTES));
  if (before !== "") reading = describe(before, text, (nowMs - beforeMs) / 1000);
  [before, beforeMs] = [text, nowMs];
}
