/** What verbs show on a terminal: nothing wider than it is, and nothing left over when they end. */

import assert from "node:assert/strict";
import { displayWidth } from "../../inspect/table.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { Ccb } from "../../shm/layout.ts";
import { RecordedShadow } from "../inspect/recorded_shadow.ts";
import { ownShadow, shadowWithAside } from "../inspect/shadows.ts";
import { withTraffic } from "../inspect/sights.ts";
import { inRepository, mayRun, Program } from "../program.ts";
import { inspector, test, whileTalking } from "./inspector.ts";

const CHANNEL = "/robot/odometry";
const ENTER = "\x1b[?1049h\x1b[?25l", LEAVE = "\x1b[?25h\x1b[?1049l";
const ERASE = "\r\x1b[K";
/** Colours, and where text goes. */
// deno-lint-ignore no-control-regex
const CONTROLS = /\x1b\[[\d;?]*[A-Za-z]/g;

test("no verb shows a line that is wider than the terminal, and all are coloured there", async () => {
  using recorded = withTraffic();
  using memory = Mapping.map(recorded.blocks("/limited").ccbFd, Ccb.slots);
  memory.view.setUint32(Ccb.version, 99, true);
  using at = await ownShadow(recorded);
  const socket = `--socket=${at.socket}`, once = ["--count=1", "--interval=20ms"];
  for (const columns of [80, 200]) {
    for (
      const args of [
        ["inspect"],
        ["channels"],
        ["users"],
        ["fds"],
        ["channel", CHANNEL],
        ["health"],
        ["watch"],
        ["hz", CHANNEL],
        ["shadows", "--server=/nowhere"],
        ["counters", "--server=/nowhere"],
      ]
    ) {
      const show = () => inspector([...args, socket, ...once], { columns });
      const { out } = args[0] === "hz" ? await whileTalking(recorded, CHANNEL, show) : await show();
      assert.notEqual(args[0] === "hz" ? "" : out, out.replace(CONTROLS, ""), args[0]);
      for (const line of out.replace(CONTROLS, "").split(/\r?\n/)) {
        assert(displayWidth(line) <= columns, `${args[0]} at ${columns}: ${line}`);
      }
    }
  }
});

test("shadows that keep something aside fit the terminal too", async () => {
  using recorded = new RecordedShadow();
  using aside = await shadowWithAside(recorded);
  const args = ["shadows", `--socket=${aside.socket}`, "--server=/nowhere"];
  const { out } = await inspector(args, { columns: 80 });
  assert.match(out.replace(CONTROLS, ""), / no server .* 9 {2}new {10,}9$/m);
  for (const line of out.replace(CONTROLS, "").split("\n")) assert(displayWidth(line) <= 80, line);
});

test("watch leaves the terminal as it was, also when it fails", async () => {
  using recorded = new RecordedShadow();
  const at = await ownShadow(recorded);
  const args = ["watch", `--socket=${at.socket}`, "--interval=1ms"];
  const { out } = await inspector([...args, "--count=2"], { columns: 80 });
  assert(out.startsWith(ENTER) && out.endsWith(LEAVE), JSON.stringify(out));
  at[Symbol.dispose]();
  const failed = await inspector(args, { columns: 80 });
  assert.equal(failed.out, "");
});

const mayWrite = Deno.permissions.querySync({ name: "write" }).state === "granted";

test(
  `progress is gone when it is over${mayWrite ? "" : " (skipped: may not write)"}`,
  async () => {
    using recorded = new RecordedShadow();
    using at = await ownShadow(recorded);
    const file = await Deno.makeTempFile();
    const args = ["record", CHANNEL, file, `--socket=${at.socket}`, "--count=3"];
    const { out, error } = await whileTalking(recorded, CHANNEL, () => inspector(args, { columns: 80 }));
    await Deno.remove(file);
    assert.match(out, /^Recorded 3 messages, /);
    assert(error.startsWith(`${ERASE}0 messages, `) && error.endsWith(ERASE), JSON.stringify(error));
  },
  !mayWrite,
);

const script = mayRun && await hasScript();

async function hasScript(): Promise<boolean> {
  try {
    const args = ["-qec", "test -t 1", "/dev/null"];
    return (await new Deno.Command("script", { args, stdin: "null", stdout: "null", stderr: "null" })
      .output())
      .success;
  } catch {
    return false;
  }
}

/** A verb on a terminal of its own. */
function onTerminal(...args: string[]): Program {
  const command = [
    Deno.execPath(),
    "run",
    "--no-prompt",
    "--allow-ffi",
    inRepository("cli/inspect.ts"),
    ...args,
  ];
  return Program.start("/usr/bin/env", ["script", "-qec", `exec ${command.join(" ")}`, "/dev/null"], {
    SHELL: "/bin/sh",
  });
}

test(
  `whoever stops a verb gets the terminal back as it was${
    script ? "" : " (skipped: needs script, and to run it)"
  }`,
  async () => {
    using recorded = new RecordedShadow();
    using at = await ownShadow(recorded);
    const socket = `--socket=${at.socket}`;
    await whileTalking(recorded, CHANNEL, async () => {
      await using tail = onTerminal("tail", CHANNEL, socket, "--format=text");
      await tail.line(/ {2}5 B {2}hello/);
      await tail.write("\x03");
      assert.equal((await tail.status()).code, 0);
      // A message may come between the key and the end.
      assert.match(tail.lines.at(-1)!, /^(\^C)?\r$/, tail.lines.join("\n"));
    });
    for (const key of ["q", "\x03"]) {
      await using watch = onTerminal("watch", socket);
      await watch.line(/NO SUBSCRIBER/);
      await watch.write(key);
      assert.equal((await watch.status()).code, 0);
      assert(watch.lines.join("\n").endsWith(LEAVE), JSON.stringify(watch.lines.at(-1)));
    }
  },
  !script,
);

test(
  `what cannot be undone is asked for, all of the question to be seen${
    script ? "" : " (skipped: needs script, and to run it)"
  }`,
  async () => {
    using recorded = new RecordedShadow();
    using aside = await shadowWithAside(recorded);
    for (
      const [verb, question] of [["rollback", / instead of 9, .* aside then\.\r$/], [
        "forget",
        / for good from .*\.\r$/,
      ]] as const
    ) {
      await using program = onTerminal(verb, `--socket=${aside.socket}`);
      await program.line(question);
      await program.write("n\n");
      assert.equal((await program.status()).code, 1);
      assert.match(program.lines.at(-1)!, /it was not confirmed; say so with --yes\r$/);
    }
    assert.notEqual(aside.shadow.previous, null);
  },
  !script,
);
