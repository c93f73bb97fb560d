/** Garbage collections for each million messages in the steady state: none where nothing is allocated. */

import type { Benchmark, Figures } from "./benchmark.ts";
import { finished, type Run, startWorker } from "./run.ts";

const name = (work: string) => `collections per million, ${work}`;
const works = [
  "publish",
  "publish and read",
  "publish and read the newest",
  "publish, waitSync and read",
  "publish and read values",
  "publish leases, and read",
  "for await, backlog of 32",
  "send and for await",
];

export const garbage: Benchmark = {
  title: "Garbage collections for a million messages, 64 B, one process",
  subjects: works.map((work) => ({ name: name(work), unit: "count" as const, alone: "C++ collects none" })),
  rounds: 3,
  async prepare(run: Run) {
    const { socket } = await run.server();
    return {
      withoutPeer: null,
      async measure(): Promise<Figures> {
        const figures: Figures = {};
        for (const work of works) {
          if (!run.wants(name(work))) continue;
          const few = await collections(socket, work, 500_000),
            many = await collections(socket, work, 1_500_000);
          figures[name(work)] = many - few;
        }
        return figures;
      },
      async [Symbol.asyncDispose]() {},
    };
  },
};

/** Counts the lines that V8 prints for its collections. */
async function collections(socket: string, work: string, messages: number): Promise<number> {
  const args = [socket, `garbage_${Deno.pid}`, work, messages];
  const lines = await finished(startWorker("garbage", args, { flags: ["--v8-flags=--trace-gc"] }));
  return lines.filter((line) => /ms: (Scavenge|Mark-Compact|Minor)/.test(line)).length;
}
