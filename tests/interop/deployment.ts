/** Deployments in which C++ programs and clients of ours meet. */

import { Client, type ConnectionChange } from "../../mod.ts";
import { type Maker, removeBuffers, sessionOf, sessionsOf, startServer, startShadow } from "../deployment.ts";
import { cppFolder, Program, uniqueSocket } from "../program.ts";
import { removeTraces } from "../traces.ts";

/** A server, a C++ shadow where one is asked for, C++ peers, and clients of ours that are closed before them. */
export class Deployment implements AsyncDisposable {
  readonly #programs: Program[] = [];
  readonly #clients: Client[] = [];
  readonly socket = uniqueSocket("server");
  readonly #shadowSocket: string | null;
  readonly #sessions = new Set<string>();
  readonly changes: ConnectionChange[] = [];
  #server: Program | null = null;

  private constructor(private readonly maker: Maker, shadow: boolean) {
    this.#shadowSocket = shadow ? uniqueSocket("shadow") : null;
  }

  static async start({ maker = "cpp", shadow = false }: {
    maker?: Maker;
    shadow?: boolean;
  }): Promise<Deployment> {
    const deployment = new Deployment(maker, shadow);
    const name = deployment.#shadowSocket;
    if (name !== null) deployment.#programs.push(await startShadow("cpp", name));
    await deployment.startServer();
    return deployment;
  }

  async startServer(): Promise<void> {
    const shadows = this.#shadowSocket === null ? [] : [this.#shadowSocket];
    this.#server = await startServer(this.maker, this.socket, shadows);
    this.#programs.push(this.#server);
    this.#sessions.add(String(await sessionOf(this.socket)));
  }

  /** Has the C++ server killed and started again by somebody who does not need this process's event loop. */
  restartServerMeanwhile(): void {
    const server = `${cppFolder}/subspace_server --local --socket=${this.socket}`;
    const restart = `kill -9 ${
      this.#server!.pid
    }; sleep 0.1; exec ${server} --shadow_socket=${this.#shadowSocket}`;
    this.#server = Program.start("/bin/sh", ["-c", restart]);
    this.#programs.push(this.#server);
  }

  signalServer(signal: Deno.Signal): void {
    this.#server!.signal(signal);
  }

  async killServer(): Promise<void> {
    await this.#server!.kill();
  }

  async connect(): Promise<Client> {
    const onConnectionChange = (change: ConnectionChange) => this.changes.push(change);
    const client = await Client.connect({ socket: this.socket, name: "case", onConnectionChange });
    this.#clients.push(client);
    return client;
  }

  /** What the clients were told, for errors. */
  get history(): string {
    const tell = (change: ConnectionChange) =>
      change.state === "lost"
        ? "lost"
        : `attached (recreated: ${change.recreated}, failed: ${change.failed.length})`;
    return this.changes.map(tell).join(", ");
  }

  peer(name: "peer_pub" | "peer_sub", ...args: string[]): Program {
    const program = Program.start(`${cppFolder}/${name}`, [`--socket=${this.socket}`, ...args]);
    this.#programs.push(program);
    return program;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client.close();
    for (const program of this.#programs.reverse()) await program.kill();
    removeBuffers(this.#sessions);
  }
}

/** A C++ server with its shadow. */
export interface CppPair {
  readonly socket: string;
  readonly shadowSocket: string;
  readonly server: Program;
  readonly shadow: Program;
  /** Ends a program too, when all are ended. */
  keep(program: Program): Program;
}

/** Starts a C++ server with a shadow that knows of it. What they leave is removed when all programs have ended. */
export async function startCppPair(programs: AsyncDisposableStack): Promise<CppPair> {
  const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow"), all: Program[] = [];
  const keep = (program: Program) => {
    all.push(program);
    return programs.use(program);
  };
  programs.defer(() => sessionsOf(all).forEach((session) => removeTraces(BigInt(session))));
  const args = [`--socket=${shadowSocket}`, "--log_level=debug"];
  const shadow = keep(Program.start(`${cppFolder}/subspace_shadow`, args));
  await shadow.line(/Shadow listening on/);
  const server = keep(await startServer("cpp", socket, [shadowSocket]));
  await shadow.line(/init session_id=/);
  return { socket, shadowSocket, server, shadow, keep };
}
