/** How long it takes from the start of a server that was killed until all that its clients had is known to it again. */

import type { Maker } from "../tests/deployment.ts";
import type { Program } from "../tests/program.ts";
import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { KeptState } from "./kept_state.ts";
import { type Run, startWorker } from "./run.ts";

/** How many channels. */
const sizes = [100, 1000];
/** Processes, each with a publisher and a subscriber on every channel. */
const CLIENTS = 2;

export const reattachments: Benchmark[] = sizes.map((channels, i) => {
  const name = `re-attach ${channels} channels`;
  const title =
    "From exec to all clients re-attached, server and shadow of one maker; the clients are ours:\n" +
    `${CLIENTS} processes with a publisher and a subscriber each on every channel`;
  return {
    ...(i === 0 ? { title } : {}),
    subjects: [{ name, goal: 1 }],
    rounds: 6,
    async prepare(run: Run) {
      const withoutPeer = run.lacks("subspace_server") ?? run.lacks("subspace_shadow");
      const ours = await Deployment.start("ours", channels, run);
      const cpp = withoutPeer === null ? await Deployment.start("cpp", channels, run) : null;
      return {
        withoutPeer,
        async measure(side: Side): Promise<Figures> {
          return { [name]: await (side === "ours" ? ours : cpp!).reattach() };
        },
        async [Symbol.asyncDispose]() {
          await ours[Symbol.asyncDispose]();
          await cpp?.[Symbol.asyncDispose]();
        },
      };
    },
  };
});

class Deployment implements AsyncDisposable {
  private constructor(private readonly state: KeptState, private readonly clients: readonly Program[]) {}

  static async start(maker: Maker, channels: number, run: Run): Promise<Deployment> {
    const state = await KeptState.start(maker, run);
    const clients = [];
    for (let i = 0; i < CLIENTS; i++) {
      const client = startWorker("creation", [state.socket, "reattachment", channels, "hold"]);
      await client.line(/^holding$/);
      clients.push(client);
    }
    return new Deployment(state, clients);
  }

  /** Nanoseconds. */
  async reattach(): Promise<number> {
    const seen = this.clients.map(({ lines }) => lines.length);
    const { startedMs } = await this.state.restart();
    const lines = await Promise.all(this.clients.map((client, i) => client.line(/^attached, .*$/, seen[i])));
    const ns = (performance.now() - startedMs) * 1e6;
    const anew = lines.find(([line]) => line !== "attached, 0 anew");
    if (anew !== undefined) throw new Error(`not everything was kept: ${anew[0]}`);
    return ns;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.clients) await client.kill("SIGKILL");
    await this.state[Symbol.asyncDispose]();
  }
}
