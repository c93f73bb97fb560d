/**
 * One side of a round trip through nothing but shared memory: `bare_memory.ts ping|pong NAME COUNT`. What the machine
 * takes to carry a word from one CPU to the other and back is the floor of everything that spins.
 */

import { Mapping } from "../../ffi/mapping.ts";
import { openNamed } from "../../ffi/memory_object.ts";
import { nowNs } from "./stopwatch.ts";

const [side, name] = Deno.args, count = Number(Deno.args[2]);
const [PING, PONG] = side === "ping" ? [0, 64] : [64, 0]; // words, on lines of their own
const PATIENCE = 1e9;

using fd = openNamed(name)!;
using mapping = Mapping.map(fd, 4096);
const words = new Int32Array(mapping.buffer);

function waitFor(value: number): void {
  for (let i = 0; i < PATIENCE; i++) if (Atomics.load(words, PONG) === value) return;
  throw new Error("no answer came");
}

function play(count: number): number {
  const start = nowNs();
  for (let i = 1; i <= count; i++) {
    if (side === "pong") waitFor(i);
    Atomics.store(words, PING, i);
    if (side === "ping") waitFor(i);
  }
  return (nowNs() - start) / count;
}

const ns = play(count);
if (side === "ping") console.log(`ping_bare ${ns.toFixed(1)}`);
