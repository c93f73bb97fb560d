/** Real processes for tests: started, read line by line, killed, and always gone at the end. */

import { TextLineStream } from "./text_lines.ts";

/** How long a condition may stay false before a test gives up. Generous: the machine may be busy. */
export const PATIENCE_MS = 60_000;

/** Whether tests may start processes. */
export const mayRun = Deno.permissions.querySync({ name: "run" }).state === "granted" &&
  Deno.permissions.querySync({ name: "read" }).state === "granted";

/** The folder of the C++ binaries, from `SUBSPACE_CPP_BIN`; undefined where there is none. */
export const cppFolder =
  Deno.permissions.querySync({ name: "env", variable: "SUBSPACE_CPP_BIN" }).state === "granted"
    ? Deno.env.get("SUBSPACE_CPP_BIN")
    : undefined;

/** A path inside the repository. */
export function inRepository(path: string): string {
  return new URL("../" + path, import.meta.url).pathname;
}

let names = 0;

/** A socket name that no other test uses. */
export function uniqueSocket(what: string): string {
  return `/subspace_test/${Deno.pid}_${Math.random().toString(36).slice(2, 8)}_${names++}_${what}`;
}

/** A running process whose output is read line by line. */
export class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reading: Promise<unknown>;
  #changed = Promise.withResolvers<void>();
  /** Whether it has ended, and said all that it had to say. */
  ended = false;
  /** All lines so far, of both streams. */
  readonly lines: string[] = [];

  private constructor(readonly name: string, command: string, args: string[], env: Record<string, string>) {
    this.#child = new Deno.Command(command, {
      args,
      env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#stdin = this.#child.stdin.getWriter();
    this.#reading = Promise.all([this.#read(this.#child.stdout), this.#read(this.#child.stderr)])
      .finally(() => {
        this.ended = true;
        this.#changed.resolve();
      });
  }

  /** Starts an executable. A write to a dead socket is an error to it, not its end: SIGPIPE is ignored. */
  static start(path: string, args: string[], env: Record<string, string> = {}): Program {
    const name = path.split("/").at(-1)!;
    return new Program(name, "/bin/sh", ["-c", 'trap "" PIPE; exec "$@"', name, path, ...args], env);
  }

  /**
   * Starts a program of this repository, with only the permissions that it needs.
   *
   * @param wrapper A command that runs another one, such as `unshare`.
   */
  static deno(path: string, args: string[], permissions = ["--allow-ffi"], wrapper: string[] = []): Program {
    const run = ["run", "--no-prompt", "--config", inRepository("deno.json"), ...permissions];
    const [command, ...rest] = [...wrapper, Deno.execPath(), ...run, inRepository(path), ...args];
    return Program.start(command, rest);
  }

  get pid(): number {
    return this.#child.pid;
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const line of stream.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())) {
      this.lines.push(line);
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    }
  }

  /**
   * Waits until a condition on the lines holds.
   *
   * @throws {Error} With all that the program said, when it ends first or patience does.
   */
  async until<T>(what: string, condition: (lines: string[]) => T | undefined | null | false): Promise<T> {
    const deadline = Date.now() + PATIENCE_MS;
    while (true) {
      const result = condition(this.lines);
      if (result !== undefined && result !== null && result !== false) return result;
      if (this.ended) throw new Error(`${this.name} ended before ${what}:\n${this.lines.join("\n")}`);
      if (Date.now() > deadline) throw new Error(`${this.name}: still no ${what}:\n${this.lines.join("\n")}`);
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([this.#changed.promise, new Promise((resolve) => timer = setTimeout(resolve, 100))]);
      clearTimeout(timer);
    }
  }

  /** Waits for a line that matches, among those from `after` on. */
  line(pattern: RegExp, after = 0): Promise<RegExpMatchArray> {
    return this.until(`line ${pattern}`, (lines) => {
      for (const line of lines.slice(after)) {
        const match = line.match(pattern);
        if (match !== null) return match;
      }
      return null;
    });
  }

  async write(text: string): Promise<void> {
    await this.#stdin.write(new TextEncoder().encode(text));
  }

  async closeStdin(): Promise<void> {
    await this.#stdin.close().catch(() => {});
  }

  signal(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  /** Waits for the end. */
  async status(): Promise<Deno.CommandStatus> {
    const status = await this.#child.status;
    await this.#reading;
    return status;
  }

  /** Kills and waits. */
  async kill(signal: Deno.Signal = "SIGKILL"): Promise<Deno.CommandStatus> {
    this.signal(signal);
    await this.closeStdin();
    return await this.status();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
