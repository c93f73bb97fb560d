/** One run of the benchmarks: what was asked for, what is at hand, and the servers that are running. */

import { removeBuffers, sessionOf, startServer } from "../tests/deployment.ts";
import { cppFolder, inRepository, Program, uniqueSocket } from "../tests/program.ts";

/** What is needed of the C++ programs; the first is none of the reference's own. */
export type PeerProgram = "peer_bench" | "perf_subspace_pub" | "subspace_server" | "subspace_shadow";

/** What was asked for. */
export interface RunOptions {
  readonly quick: boolean;
  /** Rounds of each benchmark; 0: its own number. */
  readonly rounds: number;
  /** Only subjects whose name contains one of them; none: all. */
  readonly filters: readonly string[];
}

/** A run. */
export class Run implements AsyncDisposable {
  readonly #sessions = new Set<bigint>();
  #server: Promise<DataServer> | null = null;

  constructor(private readonly options: RunOptions) {}

  wants(subject: string): boolean {
    const { filters } = this.options;
    return filters.length === 0 || filters.some((filter) => subject.includes(filter));
  }

  /** How many rounds a benchmark has that should have so many. */
  rounds(full: number): number {
    return this.options.rounds || this.scaled(full, Math.ceil(full / 3));
  }

  /** Why a C++ program cannot be run; null where it can. */
  lacks(program: PeerProgram): string | null {
    if (cppFolder === undefined) return "SUBSPACE_CPP_BIN names no folder";
    try {
      return Deno.statSync(`${cppFolder}/${program}`).isFile ? null : `${program} is no file`;
    } catch {
      return `no ${program} in that folder`;
    }
  }

  /** A number for a full run, and one for a quick one. */
  scaled(full: number, quick: number): number {
    return this.options.quick ? quick : full;
  }

  /** The server for what goes on without one: ours for both makers, as only it gives memory with doorbells. */
  server(): Promise<DataServer> {
    return this.#server ??= this.#startServer();
  }

  async #startServer(): Promise<DataServer> {
    const socket = uniqueSocket("bench"), program = await startServer("ours", socket);
    await this.noteSession(socket);
    return { socket, program };
  }

  /** Has the leftovers of a server's session removed at the end of the run. */
  async noteSession(socket: string): Promise<void> {
    this.#sessions.add(await sessionOf(socket));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await (await this.#server)?.program.kill("SIGTERM");
    removeBuffers([...this.#sessions].map(String));
    this.#removeNameHolders();
  }

  /** The reference leaves an empty file in /tmp for each piece of memory, named after the session's lower half. */
  #removeNameHolders(): void {
    const prefixes = [...this.#sessions].map((id) =>
      BigInt.asUintN(32, id).toString(16).padStart(8, "0") + "."
    );
    for (const { name, isFile } of Deno.readDirSync("/tmp")) {
      if (isFile && prefixes.some((prefix) => name.startsWith(prefix))) Deno.removeSync(`/tmp/${name}`);
    }
  }
}

/** A running server for the data plane. */
export interface DataServer {
  readonly socket: string;
  readonly program: Program;
}

/** How a program is started. */
export interface StartOptions {
  /** Flags of the runtime, for workers of ours. */
  readonly flags?: readonly string[];
  /**
   * Whether it shares one CPU with all others that say so. Then it counts what they do, and not how long the machine
   * takes to wake up another CPU. Default: false.
   */
  readonly pinned?: boolean;
  /** Whether a worker of ours has a doorbell page. Default: true. */
  readonly doorbell?: boolean;
}

/** Runs a worker of ours to its end, and returns what it printed. */
export function runWorker(
  name: string,
  args: readonly (string | number)[],
  options?: StartOptions,
): Promise<string[]> {
  return finished(startWorker(name, args, options));
}

/** Starts a worker of ours. */
export function startWorker(
  name: string,
  args: readonly (string | number)[],
  { flags = [], pinned = false, doorbell = true }: StartOptions = {},
): Program {
  const run = [Deno.execPath(), "run", "--quiet", "-A", "--config", inRepository("deno.json"), ...flags];
  const command = [...run, inRepository(`bench/workers/${name}.ts`), ...args.map(String)];
  return start(command, pinned, { SUBSPACE_BENCH_DOORBELL: String(doorbell) });
}

/** Starts `peer_bench`. */
export function startPeer(args: readonly string[], { pinned = false }: StartOptions = {}): Program {
  return start([`${cppFolder}/peer_bench`, ...args], pinned);
}

function start(command: readonly string[], pinned: boolean, env: Record<string, string> = {}): Program {
  const [program, ...args] = pinned && canPin ? ["taskset", "-c", "0", ...command] : command;
  return Program.start(program, args, env);
}

/** Whether programs can be pinned: it takes `taskset`. */
export const canPin = await succeeds("taskset", ["-V"]);

/** Whether a command can be run, and succeeds. */
export async function succeeds(command: string, args: string[], cwd?: string): Promise<boolean> {
  try {
    const options = { args, stdout: "null", stderr: "null", ...(cwd === undefined ? {} : { cwd }) } as const;
    return (await new Deno.Command(command, options).output()).success;
  } catch {
    return false;
  }
}

/** Waits for the end of a program, and returns what it printed. */
export async function finished(program: Program): Promise<string[]> {
  const { code } = await program.status();
  if (code === 0) return program.lines;
  throw new Error(`${program.name} ended with code ${code}:\n${program.lines.join("\n")}`);
}

/** The number after a name at the start of a line. */
export function figure(lines: readonly string[], name: string): number {
  const line = lines.find((line) => line.startsWith(name + " "));
  const value = Number(line?.slice(name.length + 1).split(" ", 1)[0] ?? NaN);
  if (Number.isFinite(value)) return value;
  throw new Error(`no figure ${name} in:\n${lines.join("\n")}`);
}
