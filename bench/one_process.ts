/** Publishing and reading in one process: what the code itself costs. Unreliable, 64 B, 256 slots. */

import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { type DataSubject, measureBoth, withAndWithout } from "./doorbell.ts";
import { figure, finished, type Run, runWorker, startPeer } from "./run.ts";

const SLOTS = 256;

/** What the programs call their figures. */
const subjects: readonly (DataSubject & { readonly key: string })[] = [
  { name: "publish 64 B, 1 subscriber", key: "publish_64_subs1", goal: 0.85, doorbellGoal: 0.3 },
  { name: "publish 64 B, 10 subscribers", key: "publish_64_subs10", goal: 1.1, doorbellGoal: 0.1 },
  { name: "publish 64 B, 100 subscribers", key: "publish_64_subs100", goal: 1.1, doorbellGoal: 0.1 },
  { name: "publish and read 64 B", key: "publish_read_64", goal: 0.40, doorbellGoal: 0.18 },
  { name: "publish and read 64 B until empty", key: "publish_read_drain_64" },
  {
    name: "read and release 64 B, backlog of 32",
    key: "read_release_backlog32_64",
    goal: 0.12,
    doorbellGoal: 0.12,
  },
];

export const oneProcess: Benchmark = {
  title: `One process, 64 B, ${SLOTS} slots, unreliable; per message`,
  subjects: withAndWithout(subjects),
  rounds: 7,
  async prepare(run: Run) {
    const { socket } = await run.server();
    const count = run.scaled(60_000, 20_000);
    let rounds = 0;
    return {
      withoutPeer: run.lacks("peer_bench"),
      measure(side: Side): Promise<Figures> {
        return measureBoth(side, async (doorbell) => {
          const prefix = `one_process_${side}_${rounds++}`;
          const lines = side === "ours"
            ? await runWorker("one_process", [socket, prefix, count, SLOTS], { doorbell })
            : await finished(
              startPeer([
                "local",
                `--socket=${socket}`,
                `--prefix=${prefix}`,
                `--count=${count}`,
                "--rounds=3",
                `--slots=${SLOTS}`,
              ]),
            );
          return Object.fromEntries(subjects.map(({ name, key }) => [name, figure(lines, key)]));
        });
      },
      async [Symbol.asyncDispose]() {},
    };
  },
};
