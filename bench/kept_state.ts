/** A server that is killed and goes on with the state that its shadow kept; both of one maker. */

import { type Maker, startServer, startShadow } from "../tests/deployment.ts";
import { cppFolder, Program, uniqueSocket } from "../tests/program.ts";
import { install, startInstalled } from "./installed.ts";
import type { Run } from "./run.ts";

/** A server and its shadow. */
export class KeptState implements AsyncDisposable {
  private constructor(
    private readonly maker: Maker,
    readonly socket: string,
    private readonly shadowSocket: string,
    private readonly shadow: Program,
    private server: Program,
  ) {}

  static async start(maker: Maker, run: Run): Promise<KeptState> {
    const socket = uniqueSocket("bench"), shadowSocket = uniqueSocket("bench_shadow");
    const shadow = await startShadow(maker, shadowSocket);
    if (maker === "ours") await install("server");
    const server = await startServer(maker, socket, [shadowSocket]);
    await run.noteSession(socket);
    return new KeptState(maker, socket, shadowSocket, shadow, server);
  }

  /** Kills the server and starts another one. Returns that, and when it was started: `performance.now()`. */
  async restart(): Promise<{ server: Program; startedMs: number }> {
    await this.server.kill("SIGKILL");
    const args = ["--local", `--socket=${this.socket}`, `--shadow_socket=${this.shadowSocket}`];
    const startedMs = performance.now();
    this.server = this.maker === "ours"
      ? startInstalled("server", args)
      : Program.start(`${cppFolder}/subspace_server`, args);
    return { server: this.server, startedMs };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of [this.server, this.shadow]) await program.kill("SIGKILL");
  }
}
