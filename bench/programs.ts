/** What the programs cost before they do anything: the time to start, and memory. */

import { connectAbstract } from "../ffi/unix_socket.ts";
import { type Maker, startShadow } from "../tests/deployment.ts";
import { cppFolder, Program, uniqueSocket } from "../tests/program.ts";
import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { install, startInstalled } from "./installed.ts";
import { finished, type Run, startWorker } from "./run.ts";

const start = (program: string) => `start ${program}`;
const memory = (program: string) => `memory of ${program}`;
const ONLY_OURS = "only ours has it";

export const programs: Benchmark = {
  title:
    "Programs: from exec to being ready (server, shadow) or to the end (inspector), and resident memory then",
  subjects: [
    { name: start("deno, an empty script"), alone: ONLY_OURS },
    { name: memory("deno, an empty script"), unit: "bytes", alone: ONLY_OURS },
    { name: start("server") },
    { name: memory("server"), unit: "bytes" },
    { name: start("shadow") },
    { name: memory("shadow"), unit: "bytes" },
    { name: start("inspector, at a shadow"), alone: ONLY_OURS },
  ],
  rounds: 9,
  async prepare(run: Run) {
    for (const name of ["server", "shadow", "inspect"] as const) await install(name);
    const shadowSocket = uniqueSocket("bench_shadow");
    const shadow = await startShadow("ours", shadowSocket);
    return {
      withoutPeer: run.lacks("subspace_server") ?? run.lacks("subspace_shadow"),
      async measure(side: Side): Promise<Figures> {
        const maker = side === "ours" ? "ours" : "cpp";
        const figures: Figures = { ...await measureServer(maker, run), ...await measureShadow(maker) };
        if (maker === "cpp") return figures;
        return { ...figures, ...await measureEmpty(), ...await measureInspector(shadowSocket) };
      },
      async [Symbol.asyncDispose]() {
        await shadow.kill("SIGTERM");
      },
    };
  },
};

async function measureServer(maker: Maker, run: Run): Promise<Figures> {
  const socket = uniqueSocket("bench"), args = ["--local", `--socket=${socket}`];
  const begin = performance.now();
  await using server = maker === "ours"
    ? startInstalled("server", args)
    : Program.start(`${cppFolder}/subspace_server`, args);
  while (!accepts(socket)) await new Promise((resolve) => setTimeout(resolve));
  const ns = (performance.now() - begin) * 1e6;
  await run.noteSession(socket); // and so it has done all that it does at its start
  return { [start("server")]: ns, [memory("server")]: residentBytes(server) };
}

async function measureShadow(maker: Maker): Promise<Figures> {
  const begin = performance.now();
  const args = [`--socket=${uniqueSocket("bench_shadow")}`];
  await using shadow = maker === "ours"
    ? startInstalled("shadow", args)
    : Program.start(`${cppFolder}/subspace_shadow`, args);
  await shadow.line(/Shadow listening on/);
  return { [start("shadow")]: (performance.now() - begin) * 1e6, [memory("shadow")]: residentBytes(shadow) };
}

async function measureEmpty(): Promise<Figures> {
  const begin = performance.now();
  await using script = startWorker("empty", []);
  await script.line(/^ready$/);
  const ns = (performance.now() - begin) * 1e6;
  return {
    [start("deno, an empty script")]: ns,
    [memory("deno, an empty script")]: residentBytes(script),
  };
}

async function measureInspector(shadowSocket: string): Promise<Figures> {
  const begin = performance.now();
  await finished(startInstalled("inspect", ["--socket", shadowSocket]));
  return { [start("inspector, at a shadow")]: (performance.now() - begin) * 1e6 };
}

function accepts(socket: string): boolean {
  try {
    connectAbstract(socket).close();
    return true;
  } catch {
    return false;
  }
}

function residentBytes({ pid }: Program): number {
  return 1024 * Number(Deno.readTextFileSync(`/proc/${pid}/status`).match(/VmRSS:\s*(\d+) kB/)?.[1]);
}
