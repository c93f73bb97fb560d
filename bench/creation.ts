/** 1000 channels, each with a publisher and a subscriber, through a server with a shadow. All parts of one maker. */

import { type Maker, startServer, startShadow } from "../tests/deployment.ts";
import { type Program, uniqueSocket } from "../tests/program.ts";
import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { figure, finished, type Run, runWorker, startPeer } from "./run.ts";

const CHANNELS = 1000;
const GOAL = 1 / 3;

const inTurn = { name: "create 1000 channels, one after the other", goal: GOAL };
const atOnce = { name: "create 1000 channels, all at once", goal: GOAL };

interface Deployment {
  readonly socket: string;
  readonly programs: readonly [server: Program, shadow: Program];
}

export const creation: Benchmark = {
  title:
    `${CHANNELS} channels with a publisher and a subscriber each, 64 B, 8 slots, server and shadow; for all`,
  subjects: [inTurn, atOnce],
  rounds: 5,
  async prepare(run: Run) {
    const withoutPeer = run.lacks("peer_bench");
    const ours = await start("ours", run), cpp = withoutPeer === null ? await start("cpp", run) : null;
    let rounds = 0;
    return {
      withoutPeer,
      async measure(side: Side): Promise<Figures> {
        const { socket } = side === "ours" ? ours : cpp!, prefix = `create_${rounds++}`;
        if (side === "ours") {
          const measure = async (how: string) =>
            figure(await runWorker("creation", [socket, `${prefix}_${how}`, CHANNELS, how]), "create_ns");
          return { [inTurn.name]: await measure("in-turn"), [atOnce.name]: await measure("at-once") };
        }
        const args = ["create", `--socket=${socket}`, `--prefix=${prefix}`, `--n=${CHANNELS}`, "--slots=8"];
        const ns = 1e9 * figure(await finished(startPeer(args)), "create_seconds");
        return { [inTurn.name]: ns, [atOnce.name]: ns };
      },
      async [Symbol.asyncDispose]() {
        for (const program of [...ours.programs, ...cpp?.programs ?? []]) await program.kill("SIGTERM");
      },
    };
  },
};

async function start(maker: Maker, run: Run): Promise<Deployment> {
  const socket = uniqueSocket("bench"), shadowSocket = uniqueSocket("bench_shadow");
  const shadow = await startShadow(maker, shadowSocket);
  const server = await startServer(maker, socket, [shadowSocket]);
  await run.noteSession(socket);
  return { socket, programs: [server, shadow] };
}
