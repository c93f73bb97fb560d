/** The inspector's verbs as processes: what they are given wrong, and what they are given to do. */

import assert from "node:assert/strict";
import { linesOf } from "../../cli/inspect/publish.ts";
import { ExitCode } from "../../cli/exit_codes.ts";
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

async function inspect(
  args: readonly string[],
  input = "",
  permissions: readonly string[] = ["--allow-ffi"],
): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...permissions, inRepository("cli/inspect.ts"), ...args],
    env: { DENO_NO_UPDATE_CHECK: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  // Whoever fails at once reads nothing.
  await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), error: decoder.decode(stderr) };
}

/** A server and its shadow. */
async function withSystem(run: (server: string, shadow: string) => Promise<void>): Promise<void> {
  const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
  await using shadow = Program.deno("cli/shadow.ts", [`--socket=${shadowSocket}`, "--log_level=debug"]);
  await shadow.line(/ Shadow listening on /);
  await using server = Program.deno("cli/server.ts", [
    "--local",
    `--socket=${socket}`,
    `--shadow_socket=${shadowSocket}`,
  ]);
  await server.line(/Connected to primary shadow process$/);
  try {
    await run(socket, shadowSocket);
  } finally {
    await server.kill();
    sessionsOf([shadow]).forEach((session) => removeTraces(BigInt(session)));
  }
}

Deno.test("input is published a line a message, and empty lines are none", () => {
  const lines = (text: string) =>
    linesOf(new TextEncoder().encode(text)).map((line) => new TextDecoder().decode(line));
  assert.deepEqual(lines("a\n\nbc\nd"), ["a", "bc", "d"]);
  assert.deepEqual(lines("\n"), []);
});

test("a verb to which nobody answers says so in one line, and health says down", async () => {
  const socket = `--socket=${uniqueSocket("nobody")}`;
  const verbs = ["inspect", "channels", "channel /a", "users", "fds", "watch", "hz /a", "tail /a", "metrics"];
  for (const verb of verbs) {
    const { code, out, error } = await inspect([...verb.split(" "), socket]);
    assert.deepEqual([code, out], [ExitCode.failure, ""], verb);
    assert.match(error, /^Cannot inspect [^\n]*nobody listens there \(ECONNREFUSED\)[^\n]*\n$/, verb);
  }
  const { code, out, error } = await inspect(["health", socket]);
  assert.deepEqual([code, error], [ExitCode.down, ""]);
  assert.match(out, /^DOWN\nDOWN {6}Cannot inspect /);
  const diff = await inspect(["diff", uniqueSocket("a"), uniqueSocket("b")]);
  assert.equal(diff.code, ExitCode.failure);
  const publish = await inspect(["publish", "/a", `--server=${uniqueSocket("nobody")}`], "x\n");
  assert.deepEqual([publish.code, publish.out], [ExitCode.failure, ""]);
  assert.match(publish.error, /^Cannot publish on \/a: [^\n]*ECONNREFUSED[^\n]*\n$/);
});

test("a wrong command line is told from everything else by its exit code", async () => {
  for (
    const [args, expected] of [
      [["chanels"], /^ERROR: Unknown verb 'chanels'; did you mean channels\?\n/],
      [["channel"], /^ERROR: Missing CHANNEL after 'channel'\n/],
      [["users", "x"], /^ERROR: Unexpected argument 'x'\n/],
      [
        ["watch", "--sort=size"],
        /^ERROR: Illegal value 'size' specified for flag 'sort'; expected one of name, /,
      ],
      [["tail", "/a", "--format=proto"], /^ERROR: --format=proto needs --descriptor=FILE\n/],
      [["metrics", "--listen=everywhere"], /^ERROR: Illegal value 'everywhere' specified for flag 'listen'/],
    ] as const
  ) {
    const { code, out, error } = await inspect(args);
    assert.deepEqual([code, out], [ExitCode.usage, ""], args.join(" "));
    assert.match(error, expected);
  }
});

test("a permission that is missing is named", async () => {
  const serve = await inspect(["metrics", "--listen=:1"]);
  assert.deepEqual([serve.code, serve.error], [
    ExitCode.failure,
    "Cannot listen on 127.0.0.1:1: this program was started without --allow-net; give it --allow-net=127.0.0.1:1\n",
  ]);
  const diff = await inspect(["diff", "/nowhere/a.json", "x"]);
  assert.deepEqual([diff.code, diff.error], [
    ExitCode.failure,
    "Cannot read /nowhere/a.json: this program was started without --allow-read; give it --allow-read=/nowhere/a.json\n",
  ]);
});

test("verbs that need a channel say which one may be meant", () =>
  withSystem(async (server, shadow) => {
    for (const verb of ["channel", "hz", "tail"]) {
      const { code, error } = await inspect([verb, "/subspace/Statistic", `--socket=${shadow}`]);
      assert.equal(code, ExitCode.failure);
      assert.match(error, /^Cannot show channel [^\n]*; did you mean \/subspace\/Statistics\?\n$/);
    }
    const fds = await inspect(["fds", `--socket=${server}`]);
    assert.match(fds.error, /^Cannot list the fds of [^\n]*: that is a server[^\n]*\n$/);
    const same = await inspect(["diff", shadow, server]);
    assert.deepEqual(same, { code: ExitCode.ok, out: "", error: "" });
    const health = await inspect(["health", `--socket=${shadow}`, "--json"]);
    assert.deepEqual([health.code, JSON.parse(health.out).status], [ExitCode.ok, "ok"]);
    const watch = await inspect(["watch", `--socket=${shadow}`, "--count=2", "--interval=10ms", "--json"]);
    const samples = watch.out.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(samples.map(({ channels }) => channels.length), [2, 2]);
  }));

test("what one publishes another one sees in tail, with nobody subscribed", () =>
  withSystem(async (server, shadow) => {
    // Holds the channel open: it goes with its last user.
    await using _holder = Program.deno("tests/peers/sub.ts", [`--socket=${server}`, "--channel=/said"]);
    const channelIsThere = async () =>
      (await inspect(["channels", `--socket=${shadow}`])).out.includes("/said");
    await until("/said is there", channelIsThere);
    const first = await inspect(["publish", "/said", `--server=${server}`], "before\n");
    assert.deepEqual(first, { code: 0, out: "Published 1 message, 6 B\n", error: "" });
    await using tail = Program.deno("cli/inspect.ts", [
      "tail",
      "/said",
      `--socket=${shadow}`,
      "--format=text",
      "--count=1",
    ]);
    let said = 0;
    while (!tail.lines.some((line) => /^\d+ {2}4 B {2}next$/.test(line))) {
      assert(said++ < 100, tail.lines.join("\n"));
      assert.equal((await inspect(["publish", "/said", `--server=${server}`, "--whole"], "next")).code, 0);
    }
    assert.equal((await tail.status()).code, 0);
  }));

test("what was recorded is replayed, a damaged recording as far as it is good", () =>
  withSystem(async (server, shadow) => {
    const file = await Deno.makeTempFile();
    const files = ["--allow-ffi", `--allow-read=${file}`, `--allow-write=${file}`];
    await using reader = Program.deno("tests/peers/sub.ts", [`--socket=${server}`, "--channel=/said"]);
    const users = async () => (await inspect(["users", `--socket=${shadow}`, "--json"])).out;
    const areThere = async (count: number) =>
      JSON.parse(await users()).users.filter(({ channel }: { channel: string }) => channel === "/said")
        .length >= count;
    // What is to be recorded must be there first.
    await until("the reader is there", () => areThere(1));
    await using record = Program.deno(
      "cli/inspect.ts",
      ["record", "/said", file, `--socket=${shadow}`, "--subscribe", "--count=3", "--timeout=5m"],
      files,
    );
    try {
      const publish = (text: string) => inspect(["publish", "/said", `--server=${server}`], text);
      await until("both are there", () => areThere(2));
      await until("three are recorded", async () => {
        if (record.lines.some((line) => line.startsWith("Recorded"))) return true;
        assert.equal((await publish("one\ntwo\nthree\n")).code, 0);
        return false;
      });
      assert.match(record.lines.at(-1)!, /^Recorded 3 messages, /);
      const replay = (...more: string[]) =>
        inspect(["replay", file, `--server=${server}`, ...more], "", files);
      const before = reader.lines.length;
      assert.deepEqual(await replay("--speed=max"), {
        code: ExitCode.ok,
        out: "Replayed 3 messages of 1 channel\n",
        error: "",
      });
      await reader.until("3 more", (lines) => lines.length >= before + 3);
      await Deno.truncate(file, (await Deno.stat(file)).size - 60);
      const refused = await replay();
      assert.deepEqual([refused.code, refused.out], [ExitCode.failure, ""]);
      assert.match(refused.error, /^Cannot replay [^\n]* are good: replay them with --partial\n$/);
      const partial = await replay("--partial", "--json");
      assert.equal(JSON.parse(partial.out).messages, 2);
    } finally {
      await Deno.remove(file);
    }
  }));

test("a reader that goes away ends a verb quietly", () =>
  withSystem(async (_server, shadow) => {
    const command = '"$@" | head -1; echo "codes ${PIPESTATUS[*]}"';
    for (const verb of ["inspect", "channels", "users", "fds", "metrics", "watch"]) {
      const { stdout, stderr } = await new Deno.Command("/bin/bash", {
        args: ["-c", command, "bash", Deno.execPath(), "run", "--no-prompt", "--allow-ffi"]
          .concat(inRepository("cli/inspect.ts"), verb, `--socket=${shadow}`, "--interval=10ms"),
      }).output();
      assert.equal(new TextDecoder().decode(stderr), "", verb);
      assert.match(new TextDecoder().decode(stdout), /\ncodes 0 0\n$/, verb);
    }
  }));
