/** Publishing and reading on many channels by turns: what it costs to come back to a channel. Unreliable, 64 B. */

import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { measureBoth, withAndWithout } from "./doorbell.ts";
import { figure, finished, type Run, runWorker, startPeer } from "./run.ts";

const CHANNELS = 1000;
const SLOTS = 8;
const name = `publish and read 64 B, ${CHANNELS} channels by turns`;

export const roundRobin: Benchmark = {
  subjects: withAndWithout([{ name, goal: 1 / 1.5, doorbellGoal: 1 / 1.5 }]),
  rounds: 5,
  async prepare(run: Run) {
    const { socket } = await run.server();
    const count = run.scaled(100_000, 30_000);
    let rounds = 0;
    return {
      withoutPeer: run.lacks("peer_bench"),
      measure(side: Side): Promise<Figures> {
        return measureBoth(side, async (doorbell) => {
          const prefix = `round_robin_${side}_${rounds++}`;
          if (side === "ours") {
            const args = [socket, prefix, CHANNELS, count, SLOTS];
            return { [name]: figure(await runWorker("round_robin", args, { doorbell }), "round_robin") };
          }
          const args = [`--socket=${socket}`, `--prefix=${prefix}`, `--n=${CHANNELS}`, `--count=${count}`];
          const lines = await finished(startPeer(["round-robin", ...args, `--slots=${SLOTS}`]));
          return { [name]: figure(lines, "round_robin") };
        });
      },
      async [Symbol.asyncDispose]() {},
    };
  },
};
