import assert from "node:assert/strict";
import { serverFlags } from "../../cli/server_flags.ts";
import { type Flags, parseFlags } from "../../cli/flags.ts";
import { program as shadowProgram } from "../../cli/shadow.ts";
import { Fd } from "../../ffi/fd.ts";
import { libc } from "../../ffi/libc.ts";
import { until } from "../deployment.ts";
import { inRepository, mayRun, Program, uniqueSocket } from "../program.ts";

const [AF_UNIX, SOCK_DGRAM_NONBLOCK, HEADER_BYTES] = [1, 2 | 0o4000, 2];

/** A service manager as a program sees it. */
class Manager implements Disposable {
  readonly #socket = Fd.from(libc.socket(AF_UNIX, SOCK_DGRAM_NONBLOCK, 0), "socket", "create a socket");
  /** All that it was told, one assignment an element. */
  readonly told: string[] = [];

  constructor(readonly name: string) {
    const address = new Uint8Array(HEADER_BYTES + 1 + name.length);
    address[0] = AF_UNIX;
    address.set(new TextEncoder().encode(name), HEADER_BYTES + 1);
    assert.equal(libc.bind(this.#socket.number, address, address.length), 0);
  }

  /** Starts a program that it manages. */
  start(program: string, args: string[], env: Record<string, string> = {}): Program {
    const run = ["run", "--no-prompt", "--allow-ffi", inRepository(`cli/${program}.ts`)];
    return Program.start(Deno.execPath(), [...run, ...args], { NOTIFY_SOCKET: `@${this.name}`, ...env });
  }

  isTold(assignment: string, times = 1): Promise<unknown> {
    return until(`the manager is told ${assignment}`, () => {
      const bytes = new Uint8Array(4096);
      for (let count = 1; count > 0;) {
        count = libc.read(this.#socket.number, bytes, bytes.length);
        if (count > 0) this.told.push(...new TextDecoder().decode(bytes.subarray(0, count)).split("\n"));
      }
      return this.told.filter((it) => it === assignment).length >= times;
    });
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

function test(name: string, fn: (manager: Manager) => Promise<void>): void {
  Deno.test({
    name: name + (mayRun ? "" : " (skipped: needs permission to run)"),
    ignore: !mayRun,
    fn: async () => {
      using manager = new Manager(uniqueSocket("manager"));
      await fn(manager);
    },
  });
}

test("a shadow tells its service manager that it is ready, and that it stops", async (manager) => {
  await using shadow = manager.start("shadow", [`--socket=${uniqueSocket("shadow")}`]);
  await manager.isTold("READY=1");
  assert(!manager.told.includes("WATCHDOG=1"), "nobody asked for it");
  shadow.signal("SIGTERM");
  await manager.isTold("STOPPING=1");
});

test("a server tells that it lives as often as it is to, and is ready only when it serves", async (manager) => {
  const shadowSocket = uniqueSocket("silent");
  // A shadow that accepts, and says nothing for as long as it is stopped.
  await using shadow = Program.deno("cli/shadow.ts", [`--socket=${shadowSocket}`]);
  await shadow.line(/Shadow listening on/);
  shadow.signal("SIGSTOP");
  const flags = ["--local", `--socket=${uniqueSocket("server")}`, `--shadow_socket=${shadowSocket}`];
  await using server = manager.start("server", [...flags, "--dump_timeout=1s"], { WATCHDOG_USEC: "20000" });
  await manager.isTold("WATCHDOG=1", 3);
  assert(server.lines.some((line) => /Failed to receive state dump from primary shadow/.test(line)));
  assert.equal(manager.told[0], "READY=1");
  server.signal("SIGTERM");
  await manager.isTold("STOPPING=1");
});

Deno.test({
  name: "the units give the programs flags that they have (needs permission to read)",
  ignore: Deno.permissions.querySync({ name: "read" }).state !== "granted",
  fn: () => {
    const units: [unit: string, flags: Flags][] = [
      ["subspace-server.service", serverFlags],
      ["subspace-shadow@.service", shadowProgram.flags],
    ];
    for (const [unit, flags] of units) {
      const text = Deno.readTextFileSync(inRepository(`systemd/${unit}`));
      // The group of the units need not be on this machine.
      const [, command] = text.match(/^ExecStart=(.*)$/m)!;
      const args = command.replace("=subspace ", "=0 ").replace(/=subspace$/, "=0").split(" ").slice(1);
      assert.deepEqual(parseFlags(flags, args).positionals, []);
    }
  },
});
