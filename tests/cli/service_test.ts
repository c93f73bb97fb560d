import assert from "node:assert/strict";
import { serverFlags } from "../../cli/server_flags.ts";
import { type Flags, parseFlags } from "../../cli/flags.ts";
import { program as shadowProgram } from "../../cli/shadow.ts";
import { Client } from "../../mod.ts";
import { closeAll, Fd } from "../../ffi/fd.ts";
import { libc } from "../../ffi/libc.ts";
import { receiveMessage } from "../../ffi/message.ts";
import { startServer, until } from "../deployment.ts";
import { inRepository, mayRun, Program, uniqueSocket } from "../program.ts";

const [AF_UNIX, SOCK_DGRAM_NONBLOCK, HEADER_BYTES] = [1, 2 | 0o4000, 2];
const [F_DUPFD, FDS_START, FDS_ASIDE] = [0, 3, 100];

/** What puts fds where a program is to find them. */
const PERL = "/usr/bin/perl";

/** A service manager as a program sees it. */
class Manager implements Disposable {
  readonly #socket = Fd.from(libc.socket(AF_UNIX, SOCK_DGRAM_NONBLOCK, 0), "socket", "create a socket");
  /** All that it was told, one assignment an element. */
  readonly told: string[] = [];
  /** The fds that were left with it, by name. */
  readonly kept = new Map<string, Fd>();

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

  /** Starts a program anew, with what it left here, as `sd_listen_fds(3)` has it. */
  restart(program: string, args: string[]): Program {
    // Out of the way of the numbers that they are to have; not closed on exec.
    const aside = [...this.kept.values()].map((fd) =>
      Fd.from(libc.fcntl(fd.number, F_DUPFD, FDS_ASIDE), "passed", "duplicate")
    );
    const moves = aside.map(({ number }, i) => `dup2(${number}, ${FDS_START + i}); close(${number});`).join(
      " ",
    );
    const script = `use POSIX; ${moves} $ENV{LISTEN_PID} = $$; exec @ARGV`;
    const run = ["run", "--no-prompt", "--allow-ffi", inRepository(`cli/${program}.ts`)];
    try {
      return Program.start(PERL, ["-e", script, Deno.execPath(), ...run, ...args], {
        NOTIFY_SOCKET: `@${this.name}`,
        LISTEN_FDS: String(aside.length),
        LISTEN_FDNAMES: [...this.kept.keys()].join(":"),
      });
    } finally {
      closeAll(aside);
    }
  }

  isTold(assignment: string, times = 1): Promise<unknown> {
    return until(`the manager is told ${assignment}`, () => {
      this.listen();
      return this.told.filter((it) => it === assignment).length >= times;
    });
  }

  /** Takes what it is told. */
  listen(): void {
    const bytes = new Uint8Array(4096);
    for (
      let got = receiveMessage(this.#socket, bytes);
      got !== null;
      got = receiveMessage(this.#socket, bytes)
    ) {
      const assignments = new TextDecoder().decode(bytes.subarray(0, got.byteLength)).split("\n");
      this.told.push(...assignments);
      const name = assignments.find((it) => it.startsWith("FDNAME="))?.slice(7);
      if (name === undefined) continue;
      if (assignments.includes("FDSTORE=1") && !this.kept.has(name)) this.kept.set(name, got.fds[0]);
      else closeAll(got.fds);
      if (!assignments.includes("FDSTOREREMOVE=1")) continue;
      this.kept.get(name)?.close();
      this.kept.delete(name);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.close();
    closeAll(this.kept.values());
  }
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function test(name: string, fn: (manager: Manager) => Promise<void>, needs?: string): void {
  const lacks = !mayRun ? "permission to run" : needs !== undefined && !exists(needs) ? needs : null;
  Deno.test({
    name: name + (lacks === null ? "" : ` (skipped: needs ${lacks})`),
    ignore: lacks !== null,
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

test("a shadow tells that it lives as often as it is to", async (manager) => {
  await using _shadow = manager.start("shadow", [`--socket=${uniqueSocket("shadow")}`], {
    WATCHDOG_USEC: "20000",
  });
  await manager.isTold("WATCHDOG=1", 3);
  const [ready, alive] = ["READY=1", "WATCHDOG=1"].map((it) => manager.told.indexOf(it));
  assert(ready >= 0 && ready < alive);
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

test(
  "a shadow that is killed together with the server comes back with all fds, and the server from it",
  async (manager) => {
    const [shadowSocket, serverSocket] = [uniqueSocket("shadow"), uniqueSocket("server")];
    await using shadow = manager.start("shadow", [`--socket=${shadowSocket}`]);
    await manager.isTold("READY=1");
    await using server = await startServer("ours", serverSocket, [shadowSocket]);
    await using client = await Client.connect({ socket: serverSocket });
    using publisher = await client.createPublisher("kept", { slotBytes: 64, numSlots: 8, reliable: true });
    using subscriber = await client.createSubscriber("kept", { reliable: true });
    await publisher.send(new Uint8Array([1]));
    // The two server channels and ours, a publisher or subscriber with its eventfd each, and the system block.
    await until("all is kept", () => {
      manager.listen();
      return [...manager.kept.keys()].filter((name) => name.startsWith("eventfd-")).length >= 4;
    });
    manager.listen();

    await Promise.all([server.kill(), shadow.kill()]);
    await using restarted = manager.restart("shadow", [`--socket=${shadowSocket}`]);
    await restarted.line(/Recovered 3 channels from the service manager/);
    await using next = await startServer("ours", serverSocket, [shadowSocket]);
    await next.line(/Recovered 3 channels from primary shadow/).catch((e) => {
      console.log(restarted.lines, manager.kept);
      throw e;
    });
    await publisher.send(new Uint8Array([2]));
    const messages: number[] = [];
    for await (const { data } of subscriber) if (messages.push(data[0]) === 2) break;
    assert.deepEqual(messages, [1, 2]);
  },
  PERL,
);

const ANALYZER = "/usr/bin/systemd-analyze";

test("systemd finds nothing wrong with the units", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const paths: string[] = [];
    for (const unit of ["subspace-server.service", "subspace-shadow@.service"]) {
      const text = await Deno.readTextFile(inRepository(`systemd/${unit}`));
      // Neither the programs nor their manuals need be on this machine.
      const runnable = text.replace(/^ExecStart=\S+/m, "ExecStart=/bin/true").replace(
        /^Documentation=.*$/m,
        "",
      );
      await Deno.writeTextFile(`${folder}/${unit}`, runnable);
      paths.push(`${folder}/${unit}`);
    }
    const { code, stderr } = await new Deno.Command(ANALYZER, { args: ["verify", ...paths] }).output();
    // It looks at all that these units name, and may have something to say of the machine's own.
    const said = new TextDecoder().decode(stderr).split("\n").filter((line) => /subspace/.test(line));
    assert.deepEqual([code, said], [0, []]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}, ANALYZER);

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
