/** How long a server that was killed takes from its start to having its state back from a shadow. */

import type { Maker } from "../tests/deployment.ts";
import type { Program } from "../tests/program.ts";
import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { KeptState } from "./kept_state.ts";
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
        async measure(side: Side): Promise<Figures> {
          return { [name]: await (side === "ours" ? ours : cpp!).recover() };
        },
        async [Symbol.asyncDispose]() {
          await ours[Symbol.asyncDispose]();
          await cpp?.[Symbol.asyncDispose]();
        },
      };
    },
  };
});

/** A client that has channels and is stopped: it lives, and does nothing. */
class Deployment implements AsyncDisposable {
  private constructor(private readonly state: KeptState, private readonly holder: Program) {}

  static async start(maker: Maker, channels: number, run: Run): Promise<Deployment> {
    const state = await KeptState.start(maker, run);
    const holder = startWorker("creation", [state.socket, "recovery", channels, "hold"]);
    await holder.line(/^holding$/);
    holder.signal("SIGSTOP");
    return new Deployment(state, holder);
  }

  /** Nanoseconds. */
  async recover(): Promise<number> {
    const { server, startedMs } = await this.state.restart();
    await server.line(/Recovered \d+ channels from primary shadow/);
    return (performance.now() - startedMs) * 1e6;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.holder.kill("SIGKILL");
    await this.state[Symbol.asyncDispose]();
  }
}
