/**
 * Beside what one would take in TypeScript instead: Deno's own unix sockets, and ZeroMQ over ipc. All with promises,
 * from one process to another; of a message, the first four bytes are written and read.
 */

import { inRepository, Program, uniqueSocket } from "../tests/program.ts";
import type { Benchmark, Figures, Side, Subject } from "./benchmark.ts";
import { figure, finished, type Run, startWorker, succeeds } from "./run.ts";

/** Something else that carries messages. */
interface Alternative {
  readonly name: string;
  /**
   * Gets ready in an empty folder. Returns how a worker is started that does with it what `stream.ts` and
   * `round_trip.ts` do with ours, or why it cannot be.
   */
  prepare(folder: string): Promise<StartOther | string>;
}

type StartOther = (role: string, path: string, work: Work, count: number) => Program;

const all: readonly Alternative[] = [
  {
    name: "Deno's unix sockets",
    prepare: () =>
      Promise.resolve((role, path, { bytes }, count) =>
        startWorker("unix_socket", [role, path, bytes, count])
      ),
  },
  { name: "ZeroMQ in Node", prepare: prepareZeroMq },
];

interface Work {
  readonly kind: "stream" | "round trip";
  readonly name: string;
  readonly bytes: number;
  readonly count: number;
}

const works: readonly Work[] = [
  { kind: "stream", name: "stream 64 B", bytes: 64, count: 100_000 },
  { kind: "stream", name: "stream 64 KiB", bytes: 65536, count: 20_000 },
  { kind: "stream", name: "stream 1 MiB", bytes: 1048576, count: 2_000 },
  { kind: "round trip", name: "round trip 64 B", bytes: 64, count: 10_000 },
];

const SLOTS = 32;

export const alternatives: Benchmark[] = all.map((alternative) => {
  const subject = (work: Work): Subject => ({ name: `${work.name}, beside ${alternative.name}` });
  return {
    title: `Ours beside ${alternative.name}, with promises, two processes; per message, or there and back`,
    subjects: works.map(subject),
    rounds: 3,
    peer: alternative.name,
    async prepare(run: Run) {
      const { socket } = await run.server();
      const folder = await Deno.makeTempDir({ prefix: "subspace_bench_" });
      const start = await alternative.prepare(folder);
      let rounds = 0;
      return {
        withoutPeer: typeof start === "string" ? start : null,
        async measure(side: Side): Promise<Figures> {
          const figures: Figures = {};
          for (const work of works) {
            const { name } = subject(work), count = Math.ceil(work.count / run.scaled(1, 4));
            if (!run.wants(name)) continue;
            figures[name] = side === "ours"
              ? await measureOurs(work, socket, uniqueSocket("channel"), count)
              : await measureOther(work, start as StartOther, `${folder}/${rounds++}`, count);
          }
          return figures;
        },
        async [Symbol.asyncDispose]() {
          await Deno.remove(folder, { recursive: true });
        },
      };
    },
  };
});

async function measureOurs(work: Work, socket: string, channel: string, count: number): Promise<number> {
  if (work.kind === "stream") {
    const args = [socket, channel, work.bytes, SLOTS, count, "touched", "async"];
    await using publisher = startWorker("stream", ["publish", ...args]);
    const lines = await finished(startWorker("stream", ["subscribe", ...args]));
    await finished(publisher);
    return figure(lines, "ns_per_message");
  }
  const args = [socket, channel, "async", count];
  await using pong = startWorker("round_trip", ["pong", ...args]);
  const lines = await finished(startWorker("round_trip", ["ping", ...args]));
  await finished(pong);
  return 1000 * figure(lines, "ping_async p50");
}

async function measureOther(work: Work, start: StartOther, path: string, count: number): Promise<number> {
  const [near, far] = work.kind === "stream" ? ["receive", "send"] : ["ping", "pong"];
  await using _other = start(far, path, work, count);
  return figure(await finished(start(near, path, work, count)), "ns_per_message");
}

/**
 * ZeroMQ is an add-on for Node, with the compiled code in its package. It loads in Deno, which then sleeps through
 * messages, so it runs in Node; and apart from `deno.json`, as whatever that names is downloaded by everything.
 */
async function prepareZeroMq(folder: string): Promise<StartOther | string> {
  const worker = `${folder}/zeromq.mjs`;
  await Deno.copyFile(inRepository("bench/workers/zeromq.mjs"), worker);
  await Deno.writeTextFile(`${folder}/package.json`, JSON.stringify({ dependencies: { zeromq: "6.5.0" } }));
  if (!await succeeds(Deno.execPath(), ["install", "--quiet"], folder)) return "zeromq cannot be downloaded";
  if (!await succeeds("node", ["--eval", 'require("zeromq")'], folder)) return "no node that can load zeromq";
  return (role, path, { bytes }, count) =>
    Program.start("node", [worker, role, path, String(bytes), String(count)]);
}
