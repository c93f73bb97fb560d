/** The demo's publisher: samples at 1 kHz until its standard input ends, then says how many messages it sent. */

import { Client } from "../../mod.ts";
import {
  RELIABLE_SLOTS,
  SAMPLE_HZ,
  say,
  SEQUENCE_BYTES,
  SLOT_BYTES,
  sources,
  UNRELIABLE_SLOTS,
} from "./telemetry.ts";

const [socket] = Deno.args;
await using client = await Client.connect({
  socket,
  name: "telemetry publisher",
  onConnectionChange: ({ state }) => say({ connection: state }),
});
const publishers = await Promise.all(sources.map(({ channel, reliable }) => {
  const numSlots = reliable ? RELIABLE_SLOTS : UNRELIABLE_SLOTS;
  return client.createPublisher(channel, { slotBytes: SLOT_BYTES, numSlots, reliable });
}));
say({ ready: true });

let stopped = false;
new Response(Deno.stdin.readable).text().then(() => stopped = true);

/** Writes a sample of a file behind its sequence number. Returns the length of the message. */
function sample(file: string, sequence: number, into: Uint8Array): number {
  new DataView(into.buffer, into.byteOffset).setBigUint64(0, BigInt(sequence), true);
  const text = Deno.readTextFileSync(file);
  return SEQUENCE_BYTES + new TextEncoder().encodeInto(text, into.subarray(SEQUENCE_BYTES)).written;
}

const start = performance.now();
let sequence = 0;
while (!stopped) {
  for (const [i, { file }] of sources.entries()) {
    let buffer = publishers[i].getBuffer();
    while (buffer === null) {
      await publishers[i].wait();
      buffer = publishers[i].getBuffer();
    }
    publishers[i].publish(sample(file, sequence, buffer));
  }
  sequence++;
  const pauseMs = start + sequence * 1000 / SAMPLE_HZ - performance.now();
  // Late, as timers are coarse: the next samples come at once, until the second has its thousand.
  if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
}
say({ sent: sequence });
