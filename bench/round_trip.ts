/** There and back between two processes. Unreliable, 64 B, 32 slots. */

import { openNamed, truncate, unlinkNamed } from "../ffi/memory_object.ts";
import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { measureBoth, withAndWithout } from "./doorbell.ts";
import { figure, finished, type Run, startPeer, startWorker } from "./run.ts";

/** How the two wait for each other's message, and where they run. */
interface Way {
  readonly name: string;
  readonly how: "blocking" | "async" | "spinning";
  readonly pinned: boolean;
  readonly goal?: number;
}

const ways: readonly Way[] = [
  { name: "blocking, one CPU", how: "blocking", pinned: true, goal: 0.75 },
  { name: "async, one CPU", how: "async", pinned: true },
  { name: "blocking", how: "blocking", pinned: false },
  { name: "async", how: "async", pinned: false },
  { name: "spinning", how: "spinning", pinned: false, goal: 0.45 },
];

const median = ({ name }: Way) => `round trip, ${name}, median`;
const p99 = ({ name }: Way) => `round trip, ${name}, p99`;

export const roundTrips: Benchmark[] = ways.map((way, i) => ({
  ...(i === 0
    ? {
      title:
        "Round trip between two processes, 64 B, 32 slots, unreliable; async is compared with C++ blocking",
    }
    : {}),
  subjects: withAndWithout([
    way.goal === undefined
      ? { name: median(way) }
      : { name: median(way), goal: way.goal, doorbellGoal: way.goal },
    { name: p99(way) },
  ]),
  rounds: 5,
  async prepare(run: Run) {
    const { socket } = await run.server();
    const count = run.scaled(20_000, 5_000);
    let rounds = 0;
    return {
      withoutPeer: run.lacks("peer_bench"),
      measure(side: Side): Promise<Figures> {
        return measureBoth(side, async (doorbell) => {
          const prefix = `round_trip_${side}_${i}_${rounds++}`;
          const lines = side === "ours"
            ? await measureOurs(way, socket, prefix, count, doorbell)
            : await measurePeer(way, socket, prefix, count);
          const line = lines.find((line) => line.startsWith("ping_"));
          const [, p50Us, p99Us] = line?.match(/p50 ([\d.]+) p99 ([\d.]+) us/) ?? [];
          return { [median(way)]: 1000 * Number(p50Us), [p99(way)]: 1000 * Number(p99Us) };
        });
      },
      async [Symbol.asyncDispose]() {},
    };
  },
}));

/** What the machine takes without anybody's code: beside it the spinning ones are to be seen. */
export const bareMemory: Benchmark = {
  subjects: [{ name: "round trip, bare shared memory, spinning", alone: "the floor of spinning" }],
  rounds: 5,
  prepare(run: Run) {
    const object = `subspace_bench_${Deno.pid}`, count = run.scaled(300_000, 100_000);
    return Promise.resolve({
      withoutPeer: null,
      async measure(): Promise<Figures> {
        using fd = openNamed(object, { create: true });
        truncate(fd!, 4096);
        await using pong = startWorker("bare_memory", ["pong", object, count]);
        const lines = await finished(startWorker("bare_memory", ["ping", object, count]));
        await finished(pong);
        unlinkNamed(object);
        return { [bareMemory.subjects[0].name]: figure(lines, "ping_bare") };
      },
      [Symbol.asyncDispose]() {
        unlinkNamed(object);
        return Promise.resolve();
      },
    });
  },
};

async function measureOurs(
  { how, pinned }: Way,
  socket: string,
  prefix: string,
  count: number,
  doorbell: boolean,
): Promise<string[]> {
  const args = [socket, prefix, how, count];
  await using pong = startWorker("round_trip", ["pong", ...args], { pinned, doorbell });
  const lines = await finished(startWorker("round_trip", ["ping", ...args], { pinned, doorbell }));
  await finished(pong);
  return lines;
}

async function measurePeer(
  { how, pinned }: Way,
  socket: string,
  prefix: string,
  count: number,
): Promise<string[]> {
  const mode = how === "spinning" ? "spinning" : "blocking";
  const args = [`--socket=${socket}`, `--prefix=${prefix}`, `--count=${count}`, `--mode=${mode}`];
  await using pong = startPeer(["pong", ...args], { pinned });
  const lines = await finished(startPeer(["ping", ...args], { pinned }));
  await finished(pong);
  return lines;
}
