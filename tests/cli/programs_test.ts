import assert from "node:assert/strict";
import { version } from "../../cli/version.ts";
import { ExitCode } from "../../cli/exit_codes.ts";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { sessionsOf, until } from "../deployment.ts";
import { inRepository, mayRun, Program, uniqueSocket } from "../program.ts";
import { removeTraces } from "../traces.ts";

/** Starting programs needs --allow-run and --allow-read. */
const ignore = !mayRun;
const reason = ignore ? " (skipped: needs permission to run)" : "";
const test = (name: string, fn: () => Promise<void>) => Deno.test({ name: name + reason, ignore, fn });

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** Runs a program to its end, with the one permission that it has. */
async function run(program: "server" | "shadow" | "inspect", ...args: string[]): Promise<Outcome> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--allow-ffi", inRepository(`cli/${program}.ts`), ...args],
    env: { DENO_NO_UPDATE_CHECK: "1" },
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), error: decoder.decode(stderr) };
}

/** Starts a shadow that says which sessions it keeps. */
async function startShadow(socket: string): Promise<Program> {
  const shadow = Program.deno("cli/shadow.ts", [`--socket=${socket}`, "--log_level=debug"]);
  await shadow.line(/ shadow: {2}I: : Shadow listening on /);
  return shadow;
}

/** What servers leave to a shadow outlives both. */
function removeTracesOf(shadow: Program): Disposable {
  return { [Symbol.dispose]: () => sessionsOf([shadow]).forEach((session) => removeTraces(BigInt(session))) };
}

test("every program has help and a version", async () => {
  for (const program of ["server", "shadow", "inspect"] as const) {
    assert.deepEqual(await run(program, "--version"), {
      code: 0,
      out: `subspace-${program} ${version}\n`,
      error: "",
    });
    const { code, out, error } = await run(program, "--help");
    assert.deepEqual([code, error], [0, ""]);
    assert.match(out, new RegExp(`^subspace-${program}: .*\n\nUsage: subspace-${program} `));
  }
});

test("a wrong flag ends a program with one clear reason", async () => {
  for (const [program, code] of [["server", 1], ["shadow", 1], ["inspect", ExitCode.usage]] as const) {
    assert.deepEqual(await run(program, "--sokcet=a"), {
      code,
      out: "",
      error:
        `ERROR: Unknown command line flag 'sokcet'; did you mean --socket?\nTry 'subspace-${program} --help'.\n`,
    });
  }
  const unknown = await run("server", "--log_level=loud");
  assert.equal(unknown.code, 1);
  assert.match(unknown.error, /^Unknown log level loud;/);
  const separate = await run("server", "--local", "false");
  assert.match(separate.error, /^ERROR: Unexpected argument 'false'; to set a switch, write --flag=false\n/);
  assert.match(
    (await run("inspect", "inspekt")).error,
    /^ERROR: Unknown verb 'inspekt'; did you mean inspect\?\n/,
  );
});

test("server and shadow stop in order when asked to, and the exit code is 0", async () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const shadowSocket = uniqueSocket("shadow"), serverSocket = uniqueSocket("server");
    await using shadow = await startShadow(shadowSocket);
    using _traces = removeTracesOf(shadow);
    await using server = Program.deno("cli/server.ts", [
      "--local",
      `--socket=${serverSocket}`,
      `--shadow_socket=${shadowSocket}`,
    ]);
    await server.line(/ Subspace server: {2}I: : Connected to primary shadow process$/);
    server.signal(signal);
    assert.deepEqual({ ...await server.status() }, { success: true, code: 0, signal: null });
    await shadow.line(/ I: : Server disconnected$/);
    shadow.signal(signal);
    assert.deepEqual({ ...await shadow.status() }, { success: true, code: 0, signal: null });
    assert.throws(() => connectAbstract(shadowSocket), { code: "ECONNREFUSED" });
  }
});

test("a shadow's log is quiet about those who only look", async () => {
  const socket = uniqueSocket("shadow");
  await using shadow = Program.deno("cli/shadow.ts", [`--socket=${socket}`]);
  await shadow.line(/ Shadow listening on /);
  for (const verb of ["inspect", "counters"]) {
    assert.equal((await run("inspect", verb, `--socket=${socket}`)).code, 0, verb);
  }
  await shadow.kill("SIGTERM");
  assert.deepEqual(shadow.lines.filter((line) => !line.endsWith(` Shadow listening on ${socket}`)), []);
});

test("a socket in use is an error with exit code 1", async () => {
  const socket = uniqueSocket("taken");
  await using _shadow = await startShadow(socket);
  const hint = "somebody listens there already: stop them, or choose another --socket\n";
  assert.deepEqual(await run("shadow", `--socket=${socket}`), {
    code: 1,
    out: "",
    error: `Error running shadow process: Cannot listen on ${socket}: EADDRINUSE; ${hint}`,
  });
  assert.deepEqual(await run("server", "--local", `--socket=${socket}`), {
    code: 1,
    out: "",
    error: `Error running Subspace server: Cannot listen on ${socket}: EADDRINUSE; ${hint}`,
  });
});

test("whoever started a server is told when it is ready and when it has stopped", async () => {
  const socket = uniqueSocket("server");
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--allow-ffi", inRepository("cli/server.ts"), "--local", "--notify_fd=1"]
      .concat(`--socket=${socket}`),
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const notices: bigint[] = [];
  for await (const bytes of child.stdout) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < bytes.length; at += 8) notices.push(view.getBigInt64(at, true));
    if (notices.length > 1) break;
    connectAbstract(socket).close();
    child.kill("SIGTERM");
  }
  assert.deepEqual(notices, [1n, 2n]);
  assert.equal((await child.status).code, 0);
});

test("a descriptor to notify that is none is an error", async () => {
  const { code, error } = await run(
    "server",
    "--local",
    `--socket=${uniqueSocket("server")}`,
    "--notify_fd=999",
  );
  assert.equal(code, 1);
  assert.equal(error, "Cannot use --notify_fd=999: it is no open file descriptor (EBADF)\n");
});

test("a server says in one line what it does not do", async () => {
  const start = async (...args: string[]) => {
    const socket = uniqueSocket("server");
    await using server = Program.deno("cli/server.ts", [`--socket=${socket}`, ...args]);
    await until("the server listens", () => {
      try {
        connectAbstract(socket).close();
        return true;
      } catch {
        return false;
      }
    });
    await server.kill("SIGTERM");
    return server.lines.map((line) => line.replace(/^.*Subspace server: {2}/, ""));
  };
  assert.deepEqual(await start("--local"), []);
  assert.deepEqual(await start(), [
    "I: : Bridging to other machines is not there yet: serving this one only, as with --local",
  ]);
  assert.deepEqual(
    await start("--local", "--peer_address=host", "--bridge_ports=1-2", "--plugins=nop:/nop.so"),
    [
      "W: : Bridging to other machines is not there yet: --peer_address, --bridge_ports are without effect",
      "W: : Plugins are C++ objects, which this server cannot load: going on without nop:/nop.so",
    ],
  );
});

test("the inspector shows a shadow and a server, as text and as data", async () => {
  const shadowSocket = uniqueSocket("shadow"), serverSocket = uniqueSocket("server");
  await using shadow = await startShadow(shadowSocket);
  using _traces = removeTracesOf(shadow);
  const empty = await run("inspect", `--socket=${shadowSocket}`);
  assert.equal(
    empty.out,
    `Shadow ${shadowSocket} (pid ${shadow.pid})\n` +
      "No session yet: no server has connected since the shadow was started.\n",
  );
  const args = ["--local", `--socket=${serverSocket}`, `--shadow_socket=${shadowSocket}`];
  await using server = Program.deno("cli/server.ts", args);
  await server.line(/Connected to primary/);
  for (const [kind, socket] of [["Shadow", shadowSocket], ["Server", serverSocket]]) {
    await until(`the ${kind} knows the server's channels`, async () => {
      const { code, out, error } = await run("inspect", `--socket=${socket}`);
      assert.deepEqual([code, error], [0, ""]);
      assert(out.startsWith(`${kind} ${socket} (pid `));
      return /^\/subspace\/Statistics +1 +1 +0 /m.test(out);
    });
  }
  const { out } = await run("inspect", "inspect", "--json", `--socket=${shadowSocket}`);
  const { schemaVersion, session, channels, findings } = JSON.parse(out);
  assert.deepEqual([schemaVersion, session.server, findings], [1, { pid: server.pid, alive: true }, []]);
  assert.deepEqual(channels.map(({ name }: { name: string }) => name), [
    "/subspace/ChannelDirectory",
    "/subspace/Statistics",
  ]);
  await server.kill();
  const dead = await run("inspect", `--socket=${shadowSocket}`);
  assert.match(
    dead.out,
    new RegExp(`^DEAD  the server is down: its process \\(${server.pid}\\) is gone$`, "m"),
  );
  assert.equal(dead.code, 0);
});

test("the inspector says in one line why it cannot, with exit code 1", async () => {
  const socket = uniqueSocket("nobody");
  const { code, out, error } = await run("inspect", `--socket=${socket}`);
  assert.deepEqual([code, out], [1, ""]);
  assert.match(error, /^Cannot inspect .*: nobody listens there \(ECONNREFUSED\);.*\n$/);
});

test("a closed standard output is no error", async () => {
  const socket = uniqueSocket("shadow");
  await using _shadow = await startShadow(socket);
  const child = new Deno.Command("/bin/sh", {
    args: ["-c", `"$@" 3>&1 >&- | head -0`, "sh", Deno.execPath(), "run", "--no-prompt", "--allow-ffi"]
      .concat(
        inRepository("cli/inspect.ts"),
        `--socket=${socket}`,
      ),
    stderr: "piped",
  });
  const { code, stderr } = await child.output();
  assert.deepEqual([code, new TextDecoder().decode(stderr)], [0, ""]);
});

test("SIGUSR1 makes a program say more, and then as little as before; logs may be JSON", async () => {
  const socket = uniqueSocket("shadow");
  await using shadow = Program.deno("cli/shadow.ts", [`--socket=${socket}`, "--log_format=json"]);
  const messages = () => shadow.lines.map((line) => JSON.parse(line).message);
  await shadow.line(/Shadow listening on/);
  for (const level of ["debug", "verbose", "info"]) {
    shadow.signal("SIGUSR1");
    await shadow.line(new RegExp(`Log level is ${level} now`));
  }
  assert.deepEqual(messages().slice(1), ["debug", "verbose", "info"].map((it) => `Log level is ${it} now`));
});
