/** How long a server that was killed takes from its start to having its state back from a shadow. */

import { type Maker, startServer, startShadow } from "../tests/deployment.ts";
import { cppFolder, Program, uniqueSocket } from "../tests/program.ts";
import type { Benchmark, Figures } from "./benchmark.ts";
import { type Run, startWorker } from "./run.ts";

/** How many channels, each with a publisher and a subscriber. */
const sizes = [1, 100, 1000];

export const recoveries: Benchmark[] = sizes.map((channels, i) => {
  const name = `recover ${channels} ${channels === 1 ? "channel" : "channels"}`;
  return {
    ...(i === 0 ? { title: "From exec to the log line 'Recovered', server and shadow of one maker" } : {}),
    subjects: [{ name }],
    rounds: 6,
    async prepare(run: Run) {
      const withoutPeer = run.lacks("subspace_server") ?? run.lacks("subspace_shadow");
      const ours = await Deployment.start("ours", channels, run);
      const cpp = withoutPeer === null ? await Deployment.start("cpp", channels, run) : null;
      return {
        withoutPeer,
        async measure(maker: Maker): Promise<Figures> {
          return { [name]: await (maker === "ours" ? ours : cpp!).recover() };
        },
        async [Symbol.asyncDispose]() {
          await ours[Symbol.asyncDispose]();
          await cpp?.[Symbol.asyncDispose]();
        },
      };
    },
  };
});

/** A server, its shadow, and a client that has channels and is stopped: it lives, and does nothing. */
class Deployment implements AsyncDisposable {
  private constructor(
    private readonly maker: Maker,
    private readonly socket: string,
    private readonly shadowSocket: string,
    private readonly shadow: Program,
    private readonly holder: Program,
    private server: Program,
  ) {}

  static async start(maker: Maker, channels: number, run: Run): Promise<Deployment> {
    const socket = uniqueSocket("bench"), shadowSocket = uniqueSocket("bench_shadow");
    const shadow = await startShadow(maker, shadowSocket);
    const server = await startServer(maker, socket, [shadowSocket]);
    await run.noteSession(socket);
    const holder = startWorker("creation", [socket, "recovery", channels, "hold"]);
    await holder.line(/^holding$/);
    holder.signal("SIGSTOP");
    return new Deployment(maker, socket, shadowSocket, shadow, holder, server);
  }

  /** Nanoseconds. */
  async recover(): Promise<number> {
    await this.server.kill("SIGKILL");
    const args = ["--local", `--socket=${this.socket}`, `--shadow_socket=${this.shadowSocket}`];
    const start = performance.now();
    this.server = this.maker === "ours"
      ? Program.deno("cli/server.ts", args)
      : Program.start(`${cppFolder}/subspace_server`, args);
    await this.server.line(/Recovered \d+ channels from primary shadow/);
    return (performance.now() - start) * 1e6;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of [this.holder, this.server, this.shadow]) await program.kill("SIGKILL");
  }
}
