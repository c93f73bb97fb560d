/** A server that is killed and goes on with the state that its shadow kept; both of one maker. */

import { type Maker, startServer, startShadow } from "../tests/deployment.ts";
import { cppFolder, Program, uniqueSocket } from "../tests/program.ts";
import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { install, startInstalled } from "./installed.ts";
import { type Run, startWorker } from "./run.ts";

/** What is measured, of one server and its clients. */
interface Back {
  /** Starts the next server: time runs from then until `isBack` resolves. */
  restart(): Promise<Program>;
  readonly clients: readonly Program[];
}

/** A figure of a server that was killed. */
interface AfterKill {
  readonly name: string;
  readonly goal?: number;
  /** Processes that have a publisher and a subscriber on every channel; those that are stopped live, and do nothing. */
  readonly clients: {
    readonly count: number;
    readonly worker: string;
    readonly channels: number;
    readonly stopped?: boolean;
  };
  isBack(back: Back): Promise<void>;
}

/** Measures it for both makers. */
export function afterKill({ name, goal, clients, isBack }: AfterKill): Benchmark {
  return {
    subjects: [{ name, ...(goal === undefined ? {} : { goal }) }],
    rounds: 6,
    async prepare(run: Run) {
      const withoutPeer = run.lacks("subspace_server") ?? run.lacks("subspace_shadow");
      const ours = await KeptState.start("ours", run, clients);
      const cpp = withoutPeer === null ? await KeptState.start("cpp", run, clients) : null;
      return {
        withoutPeer,
        async measure(side: Side): Promise<Figures> {
          return { [name]: await (side === "ours" ? ours : cpp!).time(isBack) };
        },
        async [Symbol.asyncDispose]() {
          await ours[Symbol.asyncDispose]();
          await cpp?.[Symbol.asyncDispose]();
        },
      };
    },
  };
}

/** A server, its shadow and its clients. */
class KeptState implements AsyncDisposable {
  private constructor(
    private readonly maker: Maker,
    private readonly socket: string,
    private readonly shadowSocket: string,
    private readonly shadow: Program,
    private server: Program,
    private readonly clients: readonly Program[],
  ) {}

  static async start(maker: Maker, run: Run, { count, worker, channels, stopped }: AfterKill["clients"]) {
    const socket = uniqueSocket("bench"), shadowSocket = uniqueSocket("bench_shadow");
    const shadow = await startShadow(maker, shadowSocket);
    if (maker === "ours") await install("server");
    const server = await startServer(maker, socket, [shadowSocket]);
    await run.noteSession(socket);
    const clients: Program[] = [];
    for (let i = 0; i < count; i++) {
      const client = startWorker("creation", [socket, worker, channels, "hold"]);
      await client.line(/^holding$/);
      if (stopped) client.signal("SIGSTOP");
      clients.push(client);
    }
    return new KeptState(maker, socket, shadowSocket, shadow, server, clients);
  }

  /** Nanoseconds from the start of the next server. */
  async time(isBack: AfterKill["isBack"]): Promise<number> {
    let startedMs = 0;
    await isBack({
      clients: this.clients,
      restart: async () => {
        await this.server.kill("SIGKILL");
        startedMs = performance.now();
        return this.server = this.#startAgain();
      },
    });
    return (performance.now() - startedMs) * 1e6;
  }

  #startAgain(): Program {
    const args = ["--local", `--socket=${this.socket}`, `--shadow_socket=${this.shadowSocket}`];
    return this.maker === "ours"
      ? startInstalled("server", args)
      : Program.start(`${cppFolder}/subspace_server`, args);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of [...this.clients, this.server, this.shadow]) await program.kill("SIGKILL");
  }
}
