/** Runs three compiled programs as a user without PATH and HOME would, and measures them. */

import assert from "node:assert/strict";
import { version } from "../cli/version.ts";
import { Client } from "../mod.ts";

const PATIENCE_MS = 30_000;

/** Which folder the programs may unpack to; all that they know of the user. */
type Environment = Readonly<Record<string, string>>;

/** A program that runs, and what it says. */
class Running implements AsyncDisposable {
  #said = "";
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>;

  constructor(path: string, args: string[], env: Environment) {
    this.#child = new Deno.Command(path, { args, env, clearEnv: true, stdout: "null", stderr: "piped" })
      .spawn();
    this.#reading = this.#read();
  }

  async #read(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) this.#said += text;
  }

  async untilItSays(what: string): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    while (!this.#said.includes(what)) {
      if (Date.now() > deadline) throw new Error(`It never said "${what}", only:\n${this.#said}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Resident memory, in MiB. */
  async memoryMiB(): Promise<number> {
    const status = await Deno.readTextFile(`/proc/${this.#child.pid}/status`);
    return Number(status.match(/^VmRSS:\s*(\d+)/m)?.[1]) / 1024;
  }

  async end(signal: Deno.Signal): Promise<void> {
    this.#child.kill(signal);
    await this.#child.status;
    await this.#reading;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.end("SIGKILL");
    } catch {
      // It has ended.
    }
  }
}

/** Throws where something does not work. Prints start-up times and memory. */
export async function tryOut(folder: string): Promise<void> {
  const cache = await Deno.makeTempDir({ prefix: "subspace_try_" });
  const env: Environment = { PATH: "", HOME: "", XDG_RUNTIME_DIR: cache };
  try {
    for (const program of ["server", "shadow", "inspect"]) {
      await tryProgram(folder, `subspace-${program}`, env);
    }
    await killAndRecover(folder, env);
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
}

async function tryProgram(folder: string, name: string, env: Environment): Promise<void> {
  const path = `${folder}/${name}`;
  const times: number[] = [];
  for (let i = 0; i < 6; i++) {
    const begin = performance.now();
    assert.equal(await outputOf(path, ["--version"], env), `${name} ${version}\n`);
    times.push(performance.now() - begin);
  }
  const [first, ...later] = times;
  assert.match(await outputOf(path, ["--help"], env), new RegExp(`^${name}: .*\n\nUsage: ${name} `));
  console.log(
    `${name.padEnd(16)} starts in ${first.toFixed(0)} ms at first, ${
      Math.min(...later).toFixed(0)
    } ms from then on`,
  );
}

async function outputOf(path: string, args: string[], env: Environment): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(path, { args, env, clearEnv: true }).output();
  const error = new TextDecoder().decode(stderr);
  assert.equal(code, 0, `${path} ${args.join(" ")}: ${error}`);
  return new TextDecoder().decode(stdout);
}

/** A server is killed between two messages, and comes back. */
async function killAndRecover(folder: string, env: Environment): Promise<void> {
  const id = `/subspace_try/${Deno.pid}`;
  const sockets = [`--socket=${id}_server`, `--shadow_socket=${id}_shadow`];
  const startServer = () => new Running(`${folder}/subspace-server`, ["--local", ...sockets], env);
  await using shadow = new Running(`${folder}/subspace-shadow`, [`--socket=${id}_shadow`], env);
  await shadow.untilItSays("Shadow listening on");
  const first = startServer();
  await first.untilItSays("Connected to primary shadow process");
  await using client = await Client.connect({ socket: `${id}_server`, waitMs: PATIENCE_MS });
  using publisher = await client.createPublisher("/try", { slotBytes: 64, numSlots: 8, reliable: true });
  using subscriber = await client.createSubscriber("/try", { reliable: true });
  const exchange = async (byte: number) => {
    await publisher.send(new Uint8Array([byte]));
    for await (const message of subscriber) return assert.equal(message.data[0], byte);
  };
  await exchange(1);
  await first.end("SIGKILL");
  await exchange(2);
  await using second = startServer();
  await second.untilItSays("from primary shadow");
  await exchange(3);
  const seen = await outputOf(`${folder}/subspace-inspect`, [`--socket=${id}_shadow`], env);
  assert.match(seen, /\/try/);
  const memory = [await second.memoryMiB(), await shadow.memoryMiB()].map((mib) => mib.toFixed(0));
  console.log(
    `killed the server and recovered; resident memory: server ${memory[0]} MiB, shadow ${memory[1]} MiB`,
  );
  await shadow.end("SIGTERM");
  await client[Symbol.asyncDispose]();
  await second.end("SIGTERM");
}
