/**
 * The demo: real processes publish and subscribe while the server is killed three times. `deno task demo`.
 *
 * Two shadows, a server, a publisher that samples this machine at 1 kHz on three channels, a subscriber for each.
 * Its last line counts recoveries, messages and losses; the exit code is 1 if anything was lost.
 */

import { monotonicNs } from "../ffi/clock.ts";
import { Program } from "../tests/program.ts";
import { type Report, sources } from "./demo/telemetry.ts";

const RECOVERIES = 3;
/** How long traffic flows before each kill, and how long there is no server. */
const FLOW_MS = 500;
const GAP_MS = 200;

const run = `${Deno.pid}_${monotonicNs()}`;
const socket = `/subspace_demo/${run}/server`;
const shadowSockets = ["primary", "secondary"].map((name) => `/subspace_demo/${run}/${name}`);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const bold = (text: string) => Deno.noColor || !Deno.stdout.isTerminal() ? text : `\x1b[1m${text}\x1b[0m`;
const tell = (when: string, what: string) => console.log(`${bold(when.padEnd(12))}${what}`);

const reports = ({ lines }: Program): Report[] =>
  lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
const lastReport = (program: Program): Report =>
  reports(program).findLast(({ received }) => received !== undefined) ?? {};
const attachments = (program: Program) =>
  reports(program).filter(({ connection }) => connection === "attached").length;

class Demo implements AsyncDisposable {
  #shadows: Program[] = [];
  #server!: Program;
  #publisher!: Program;
  #subscribers: Program[] = [];

  get #clients(): Program[] {
    return [this.#publisher, ...this.#subscribers];
  }

  #received(): number {
    return this.#subscribers.reduce((sum, subscriber) => sum + (lastReport(subscriber).received ?? 0), 0);
  }

  async #startShadow(which: number): Promise<void> {
    const shadow = Program.deno("cli/shadow.ts", [`--socket=${shadowSockets[which]}`]);
    this.#shadows[which] = shadow;
    await shadow.line(/Shadow listening on/);
  }

  async #startServer(): Promise<void> {
    const [primary, secondary] = shadowSockets.map((name) => `=${name}`);
    this.#server = Program.deno("cli/server.ts", [
      "--local",
      `--socket=${socket}`,
      `--shadow_socket${primary}`,
      `--secondary_shadow_socket${secondary}`,
    ]);
    await this.#server.line(/Connected to secondary shadow process/);
  }

  async start(): Promise<void> {
    await Promise.all([this.#startShadow(0), this.#startShadow(1)]);
    await this.#startServer();
    this.#subscribers = sources.map(({ channel }) =>
      Program.deno("scripts/demo/subscriber.ts", [socket, channel])
    );
    await Promise.all(this.#subscribers.map((subscriber) => subscriber.line(/"ready":true/)));
    // Deno lets nobody read /proc who may not do everything.
    this.#publisher = Program.deno("scripts/demo/publisher.ts", [socket], ["--allow-all"]);
    await Promise.all(
      this.#subscribers.map((subscriber) =>
        subscriber.until("its first messages", () => (lastReport(subscriber).received ?? 0) > 0)
      ),
    );
    tell("started", "2 shadows, 1 server, 1 publisher, 3 subscribers: each a process of its own");
    for (const { channel, file, reliable } of sources) {
      tell(
        "",
        `${channel.padEnd(18)} ${reliable ? "reliable  " : "unreliable"}  ${file}, 1000 times a second`,
      );
    }
  }

  /** Kills the server in mid-stream and starts it again. `shadow` names a shadow to be killed with it. */
  async killAndRecover(round: number, shadow?: number): Promise<void> {
    await pause(FLOW_MS);
    const before = this.#received();
    const attachedBefore = this.#clients.map(attachments);
    await this.#server.kill();
    if (shadow !== undefined) await this.#shadows[shadow].kill();
    const victims = shadow === undefined ? "the server" : "the server and its primary shadow";
    console.log();
    tell(`kill ${round}`, `SIGKILL to ${victims} after ${before} messages`);
    const atKill = this.#received();
    await pause(GAP_MS);
    tell("", `${this.#received() - atKill} more went through in ${GAP_MS} ms without any server`);

    if (shadow !== undefined) await this.#startShadow(shadow);
    const start = performance.now();
    await this.#startServer();
    const [line] = await this.#server.line(/Recovered \d+ channels .*/);
    tell("recovered", `after ${(performance.now() - start).toFixed(0)} ms: ${line}`);
    await Promise.all(
      this.#clients.map((client, i) =>
        client.until("its re-attachment", () => attachments(client) > attachedBefore[i])
      ),
    );
    tell(
      "",
      `all ${this.#clients.length} clients attached again after ${(performance.now() - start).toFixed(0)} ms`,
    );
  }

  /** Ends the traffic and counts. Returns what was sent and what was lost. */
  async finish(): Promise<{ sent: number; lost: number }> {
    await pause(FLOW_MS);
    console.log();
    tell("inspect", "what the primary shadow holds, and what is in the memory that it keeps");
    const inspect = Program.deno("cli/inspect.ts", ["--socket", shadowSockets[0]]);
    await inspect.status();
    console.log("\n" + inspect.lines.join("\n") + "\n");

    await this.#publisher.closeStdin();
    await this.#publisher.status();
    const sent = reports(this.#publisher).findLast(({ sent }) => sent !== undefined)?.sent ?? 0;
    await Promise.all(this.#subscribers.map((subscriber) => this.#untilQuiet(subscriber, sent)));
    let lost = 0;
    for (const [i, { channel }] of sources.entries()) {
      const { received = 0, reading = "" } = lastReport(this.#subscribers[i]);
      lost += sent - received;
      tell(
        i === 0 ? "counted" : "",
        `${channel.padEnd(18)} ${sent} sent, ${received} received, ${sent - received} lost   ${reading}`,
      );
    }
    return { sent: sent * sources.length, lost };
  }

  /** Waits until a subscriber has everything, or has received nothing for a second. */
  async #untilQuiet(subscriber: Program, sent: number): Promise<void> {
    for (let before = -1, quiet = 0; quiet < 10; await pause(100)) {
      const { received = 0 } = lastReport(subscriber);
      if (received === sent) return;
      quiet = received === before ? quiet + 1 : 0;
      before = received;
    }
  }

  /** The clients go first, then the shadows: with nobody left to recover it, the server removes its state. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of [this.#publisher, ...this.#subscribers]) await program?.kill();
    for (const program of [...this.#shadows, this.#server]) await program?.kill("SIGTERM");
  }
}

await using demo = new Demo();
await demo.start();
for (let round = 1; round <= RECOVERIES; round++) {
  // The second time a shadow dies as well: one is enough.
  await demo.killAndRecover(round, round === 2 ? 0 : undefined);
}
const { sent, lost } = await demo.finish();
Deno.exitCode = lost === 0 ? 0 : 1;
console.log(`\n${RECOVERIES} recoveries, ${sent} messages, ${lost} lost`);
