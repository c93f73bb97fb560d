/** The inspector at a system of 1000 channels and 4000 users, under traffic. */

import { startServer, startShadow } from "../tests/deployment.ts";
import { type Program, uniqueSocket } from "../tests/program.ts";
import type { Benchmark, Figures } from "./benchmark.ts";
import { install, startInstalled } from "./installed.ts";
import { finished, type Run, startWorker } from "./run.ts";

const CHANNELS = 1000;
const SUBSCRIBERS = 3;
/** One process may not have the fds of all users. */
const PROCESSES = 4;
const HZ = 2;
/** Ticks of the kernel's accounts of time. */
const TICK_NS = 1e7;

const verbs = ["inspect", "health", "channels"];
const once = (verb: string) => ({ name: `${verb}, from exec to end`, alone: "only ours has it" });
const watch = { name: "watch, time of a CPU in a second", alone: "only ours has it" };

export const inspector: Benchmark = {
  title: `The inspector at ${CHANNELS} channels with ${CHANNELS * (1 + SUBSCRIBERS)} users, through a shadow`,
  subjects: [...verbs.map(once), watch],
  rounds: 5,
  async prepare(run: Run) {
    await install("inspect");
    const socket = uniqueSocket("bench"), shadowSocket = uniqueSocket("bench_shadow");
    const shadow = await startShadow("ours", shadowSocket);
    const server = await startServer("ours", socket, [shadowSocket]);
    await run.noteSession(socket);
    const users = Array.from(
      { length: PROCESSES },
      (_, i) => startWorker("users", [socket, `/bench/${i}/`, CHANNELS / PROCESSES, SUBSCRIBERS, HZ]),
    );
    for (const program of users) await program.line(/^ready$/);
    return {
      withoutPeer: "only ours has it",
      async measure(): Promise<Figures> {
        const figures: Figures = { [watch.name]: await measureWatch(shadowSocket) };
        for (const verb of verbs) figures[once(verb).name] = await measureOnce(verb, shadowSocket);
        return figures;
      },
      async [Symbol.asyncDispose]() {
        for (const program of [...users, server, shadow]) await program.kill("SIGKILL");
      },
    };
  },
};

async function measureOnce(verb: string, socket: string): Promise<number> {
  const begin = performance.now();
  await finished(startInstalled("inspect", [verb, `--socket=${socket}`]));
  return (performance.now() - begin) * 1e6;
}

const SECONDS = 4;

async function measureWatch(socket: string): Promise<number> {
  await using program = startInstalled("inspect", ["watch", "--json", `--socket=${socket}`]);
  const samples = (count: number) => program.until(`${count} samples`, (lines) => lines.length >= count);
  await samples(2);
  const before = cpuNs(program), begin = performance.now();
  await samples(2 + SECONDS);
  return (cpuNs(program) - before) / (performance.now() - begin) * 1000;
}

function cpuNs({ pid }: Program): number {
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_NS;
}
