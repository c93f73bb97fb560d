/** There and back between two processes. Unreliable, 64 B, 32 slots. */

import type { Maker } from "../tests/deployment.ts";
import type { Benchmark, Figures } from "./benchmark.ts";
import { figure, finished, type Run, startPeer, startWorker } from "./run.ts";

/** How the two wait for each other's message; what C++ has no word for is compared with its blocking wait. */
const ways = [
  { way: "blocking", peer: "blocking", goal: 0.75 },
  { way: "async", peer: "blocking", goal: undefined },
  { way: "spinning", peer: "spinning", goal: 0.45 },
] as const;

const median = (way: string) => `round trip, ${way}, median`;
const p99 = (way: string) => `round trip, ${way}, p99`;

export const roundTrips: Benchmark = {
  title: "Round trip between two processes, 64 B, 32 slots, unreliable; async is compared with C++ blocking",
  subjects: ways.flatMap(({ way, goal }) => [
    goal === undefined ? { name: median(way) } : { name: median(way), goal },
    { name: p99(way) },
  ]),
  rounds: 5,
  async prepare(run: Run) {
    const { socket } = await run.server();
    const count = run.scaled(15_000, 4_000);
    let rounds = 0;
    return {
      withoutPeer: run.lacks("peer_bench"),
      async measure(maker: Maker): Promise<Figures> {
        const figures: Figures = {}, prefix = `round_trip_${maker}_${rounds++}`;
        const peerLines = maker === "cpp" ? await measurePeer(socket, prefix, count) : [];
        for (const { way, peer } of ways) {
          if (!run.wants(median(way)) && !run.wants(p99(way))) continue;
          const lines = maker === "cpp"
            ? peerLines
            : await measureOurs(socket, `${prefix}_${way}`, way, count);
          const name = maker === "cpp" ? peer : way;
          figures[median(way)] = 1000 * figure(lines, `ping_${name} p50`);
          figures[p99(way)] = 1000 * percentile99(lines, `ping_${name}`);
        }
        return figures;
      },
      async [Symbol.asyncDispose]() {},
    };
  },
};

async function measureOurs(socket: string, prefix: string, way: string, count: number): Promise<string[]> {
  await using pong = startWorker("round_trip", ["pong", socket, prefix, way, count]);
  const lines = await finished(startWorker("round_trip", ["ping", socket, prefix, way, count]));
  await finished(pong);
  return lines;
}

async function measurePeer(socket: string, prefix: string, count: number): Promise<string[]> {
  const args = [`--socket=${socket}`, `--prefix=${prefix}`, `--count=${count}`];
  await using pong = startPeer(["pong", ...args]);
  const lines = await finished(startPeer(["ping", ...args]));
  await finished(pong);
  return lines;
}

/** Of a line such as `ping_blocking p50 9.700 p99 20.500 us`. */
function percentile99(lines: readonly string[], name: string): number {
  const line = lines.find((line) => line.startsWith(name));
  return Number(line?.match(/p99 ([\d.]+)/)?.[1]);
}
