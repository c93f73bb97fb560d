/** All verbs of the inspector, each with all that can be wrong with what it is given: one clear line, and the exit code. */

import assert from "node:assert/strict";
import { program } from "../../cli/inspect.ts";
import { ExitCode } from "../../cli/exit_codes.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { RecordingReader, summaryOf } from "../../inspect/recording.ts";
import { Ccb } from "../../shm/layout.ts";
import { Peer } from "../inspect/peer.ts";
import { RecordedShadow } from "../inspect/recorded_shadow.ts";
import { ownShadow, referenceShadow, shadowWithAside } from "../inspect/shadows.ts";
import { uniqueSocket } from "../program.ts";
import { inspector as run, type Outcome, test, whileTalking } from "./inspector.ts";

const { ok, failure, down, usage } = ExitCode;
const CHANNEL = "/robot/odometry";
const mayWrite = Deno.permissions.querySync({ name: "write" }).state === "granted";

/** Verbs with the operands that they need, besides `--socket`. */
const lookingVerbs: Readonly<Record<string, readonly string[]>> = {
  inspect: [],
  health: [],
  channels: [],
  channel: [CHANNEL],
  users: [],
  fds: [],
  watch: [],
  hz: [CHANNEL],
  tail: [CHANNEL],
  metrics: [],
  shadows: [],
  counters: [],
  record: [CHANNEL, "/nowhere/file"],
  rollback: [],
  forget: [],
};

const once = ["--count=1", "--interval=1ms", "--timeout=60s"];

/** One line on standard error, nothing on standard output. */
function assertRefused({ code, out, error }: Outcome, pattern: RegExp, what: string): void {
  assert.deepEqual([code, out], [failure, ""], `${what}: ${error}`);
  assert.match(error, /^[^\n]+\n$/, what);
  assert.match(error, pattern, what);
}

const SILENT = "who listens says nothing";

/** Somebody on a socket who is no shadow, or a shadow in trouble; and what all verbs say. */
const peers: Readonly<Record<string, { listen(): { socket: string } & Disposable; says: RegExp }>> = {
  "nobody listens": {
    listen: () => ({ socket: uniqueSocket("nobody"), [Symbol.dispose]: () => {} }),
    says: /nobody listens there \(ECONNREFUSED\)|no shadow of ours listens there/,
  },
  "somebody else listens": {
    listen: () => new Peer((connection) => connection.send(new TextEncoder().encode("220 mail.example.com"))),
    says: /is that a subspace shadow or server|Failed to parse|no shadow of ours listens there/,
  },
  "the shadow lets nobody in": {
    listen: () => new Peer((connection) => connection.close()),
    says: /the connection was closed|no shadow of ours listens there/,
  },
  [SILENT]: {
    listen: () => new Peer(() => {}),
    says: /no answer within 0\.06 s|no shadow of ours listens there/,
  },
};

for (const [what, { listen, says }] of Object.entries(peers)) {
  test(`${what}: all verbs that look say so in one line`, async () => {
    using peer = listen();
    // Who says nothing at all is waited for in vain.
    const hurry = what === SILENT ? [...once, "--timeout=60ms"] : once;
    for (const [verb, operands] of Object.entries(lookingVerbs)) {
      const outcome = await run([verb, ...operands, `--socket=${peer.socket}`, ...hurry]);
      if (verb !== "health") assertRefused(outcome, says, verb);
      else {
        assert.deepEqual([outcome.code, outcome.error], [down, ""]);
        assert.match(outcome.out, /^DOWN\nDOWN {6}Cannot inspect [^\n]+\n$/);
        assert.match(outcome.out, says);
      }
    }
    assertRefused(await run(["diff", peer.socket, peer.socket, ...hurry]), says, "diff");
  });
}

test("no server to publish through is said in one line", async () => {
  const server = `--server=${uniqueSocket("nobody")}`;
  const file = mayWrite ? await Deno.makeTempFile() : null;
  if (file !== null) {
    await Deno.writeTextFile(file, "x\n");
    assertRefused(
      await run(["publish", "/a", file, server]),
      /^Cannot publish on \/a: .*ECONNREFUSED/,
      "publish",
    );
    await Deno.remove(file);
  }
  assertRefused(
    await run(["tail", CHANNEL, "--subscribe", server, `--socket=${uniqueSocket("nobody")}`]),
    /ECONNREFUSED/,
    "tail",
  );
});

test("files that cannot be read or written are named in one line", async () => {
  using shadow = new RecordedShadow();
  using peer = new Peer((connection) => shadow.send(connection));
  const socket = `--socket=${peer.socket}`,
    reason = /: (there is no such file or folder|this program was started)/;
  for (
    const args of [
      ["record", CHANNEL, "/nowhere/file", socket],
      ["replay", "/nowhere/file"],
      ["publish", "/a", "/nowhere/file"],
      ["diff", "/nowhere/file.json", peer.socket],
      ["tail", CHANNEL, "--format=proto", "--descriptor=/nowhere/file", socket],
    ]
  ) assertRefused(await run([...args, ...once]), reason, args[0]);
});

Deno.test({
  name: "files that are something else are said to be in one line" +
    (mayWrite ? "" : " (skipped: may not write)"),
  ignore: !mayWrite,
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    using shadow = new RecordedShadow();
    using peer = new Peer((connection) => shadow.send(connection));
    const file = await Deno.makeTempFile({ suffix: ".json" });
    try {
      await Deno.writeTextFile(file, "nonsense");
      const descriptor = `--descriptor=${file}`, socket = `--socket=${peer.socket}`;
      for (
        const [args, says] of [
          [["replay", file], /^Cannot replay [^\n]*: it is no recording/],
          [["diff", file, peer.socket], /^Cannot compare with [^\n]*: it is no JSON/],
          [["tail", CHANNEL, "--format=proto", descriptor, socket], /^Cannot use descriptor /],
        ] as const
      ) assertRefused(await run([...args, ...once]), says, args[0]);
      await Deno.writeTextFile(file, "");
      assertRefused(
        await run(["publish", "/a", file]),
        /^Cannot publish on \/a: the input is empty/,
        "publish",
      );
    } finally {
      await Deno.remove(file);
    }
  },
});

test("a channel that does not exist is named, with the one that may be meant", async () => {
  using shadow = new RecordedShadow();
  using peer = new Peer((connection) => shadow.send(connection));
  for (const verb of ["channel", "hz", "tail", "record"]) {
    const more = verb === "record" ? ["/nowhere/file"] : [];
    const outcome = await run([verb, "/robot/odometri", ...more, `--socket=${peer.socket}`, ...once]);
    assertRefused(outcome, /^Cannot show channel .*; did you mean \/robot\/odometry\?$/m, verb);
  }
});

test("of a state dump that breaks off all is shown that came, and what is missing is said", async () => {
  using shadow = new RecordedShadow();
  using peer = new Peer((connection) => {
    shadow.send(connection, shadow.events.slice(0, 5));
    connection.close();
  });
  const socket = `--socket=${peer.socket}`;
  for (const verb of ["inspect", "channels", "users", "channel", "fds"]) {
    const { code, out, error } = await run([verb, ...lookingVerbs[verb], socket, ...once]);
    assert.deepEqual([code, out.includes(CHANNEL)], [failure, true], verb);
    assert.match(error, verb === "fds" ? /^$/ : /^Damage was found: [^\n]+\n$/, verb);
  }
  for (const verb of ["channel", "tail", "hz", "record"]) {
    const more = verb === "record" ? ["/nowhere/file"] : [];
    const outcome = await run([verb, "/split", ...more, socket, ...once]);
    assertRefused(outcome, /^Cannot show channel \/split: the state of .* broke off before it/, verb);
  }
  const health = await run(["health", socket, ...once]);
  assert.deepEqual([health.code, health.out.startsWith("DEGRADED")], [ExitCode.degraded, true]);
});

test("damaged memory is shown as far as it makes sense, and the damage is named", async () => {
  using recorded = new RecordedShadow();
  using memory = Mapping.map(recorded.blocks(CHANNEL).ccbFd, Ccb.slots);
  memory.bytes.fill(0xff);
  for (const listen of [referenceShadow, ownShadow]) {
    using shadow = await listen(recorded);
    const socket = `--socket=${shadow.socket}`;
    for (const verb of ["inspect", "channels", "users", "channel"]) {
      const { code, out, error } = await run([verb, ...lookingVerbs[verb], socket, ...once]);
      assert.equal(code, failure, verb);
      assert.match(error, /^Damage was found: [^\n]+\n$/, verb);
      assert.match(out, /DAMAGE {2}\/robot\/odometry: /, verb);
    }
    for (const verb of ["fds", "watch", "metrics"]) {
      const { code, out, error } = await run([verb, socket, ...once]);
      assert.deepEqual([code, out.includes(CHANNEL) || verb === "metrics", error], [ok, true, ""], verb);
    }
    assert.equal((await run(["health", socket, ...once])).code, ExitCode.down);
    const shadows = await run(["shadows", socket, "--server=/nowhere", ...once]);
    assert.deepEqual([shadows.code, shadows.error], [ok, ""]);
  }
  using shadow = await shadowWithAside(recorded);
  for (const args of [["counters"], ["rollback", "--yes"], ["forget", "--yes"]]) {
    const { code, error } = await run([...args, `--socket=${shadow.socket}`, ...once]);
    assert.deepEqual([code, error], [ok, ""], args[0]);
  }
});

test("whoever follows a channel whose memory is damaged is told so, and sees what can be seen", async () => {
  using recorded = new RecordedShadow();
  using memory = Mapping.map(recorded.blocks(CHANNEL).ccbFd, Ccb.slots);
  memory.view.setUint32(Ccb.version, 99, true);
  using shadow = await referenceShadow(recorded);
  const file = mayWrite ? await Deno.makeTempFile() : null;
  for (const verb of ["tail", "hz", "record"]) {
    if (verb === "record" && file === null) continue;
    const operands = verb === "record" ? [CHANNEL, file!] : [CHANNEL];
    const args = [verb, ...operands, `--socket=${shadow.socket}`, "--count=1", "--interval=20ms"];
    const { code, out, error } = await whileTalking(recorded, CHANNEL, () => run(args));
    assert.deepEqual([code, out === ""], [ok, false], verb);
    assert.equal(error, `${CHANNEL} is damaged (version 99 instead of 4): messages may go unseen\n`, verb);
  }
  if (file !== null) await Deno.remove(file);
});

test("a closed standard output ends every verb quietly, with the code of what it found", async () => {
  using recorded = new RecordedShadow();
  using shadow = await referenceShadow(recorded);
  const ended = async (args: readonly string[], expected: number = ok, socket = shadow.socket) => {
    const { code, error } = await run([...args, `--socket=${socket}`, "--interval=1ms"], { closed: true });
    assert.deepEqual([code, error], [expected, ""], args[0]);
  };
  const elsewhere = ["tail", "record", "rollback", "forget", "counters"];
  for (const [verb, operands] of Object.entries(lookingVerbs)) {
    if (!elsewhere.includes(verb)) await ended([verb, ...operands], verb === "health" ? down : ok);
  }
  // Without a message there is nothing to write.
  await whileTalking(recorded, CHANNEL, () => ended(["tail", CHANNEL]));
  if (mayWrite) {
    const file = await Deno.makeTempFile();
    await whileTalking(recorded, CHANNEL, () => ended(["record", CHANNEL, file, "--count=1"]));
    using opened = await Deno.open(file);
    const { messages, problem } = summaryOf(
      new RecordingReader(opened, (await Deno.stat(file)).size),
      () => {},
    );
    assert.deepEqual([messages, problem], [1, null]);
    await Deno.remove(file);
  }
  using aside = await shadowWithAside(recorded);
  for (const args of [["counters"], ["rollback", "--yes"], ["forget", "--yes"]]) {
    await ended(args, ok, aside.socket);
  }
  assert.equal(aside.shadow.previous, null);
});

test("what a shadow of the reference's cannot do is said in one line", async () => {
  using shadow = new RecordedShadow();
  using peer = new Peer((connection) => shadow.send(connection));
  const socket = `--socket=${peer.socket}`;
  for (const verb of ["rollback", "forget"]) {
    assertRefused(
      await run([verb, socket, "--yes", ...once]),
      /those of the reference keep nothing aside$/m,
      verb,
    );
  }
  assertRefused(await run(["counters", socket, ...once]), /which counts nothing$/m, "counters");
  const shadows = await run(["shadows", socket, "--server=/nowhere", ...once]);
  assert.deepEqual([shadows.code, shadows.error], [ok, ""]);
  assert.match(shadows.out, / reference /);
});

test("a wrong verb or flag suggests the right one, for all of them", async () => {
  for (const verb of [...Object.keys(lookingVerbs), "publish", "replay", "diff"]) {
    const mistyped = verb.slice(0, -1) + "x" + verb.slice(-1);
    const { code, out, error } = await run([mistyped]);
    assert.deepEqual([code, out], [usage, ""], verb);
    assert(error.includes(`Unknown verb '${mistyped}'; did you mean ${verb}?`), error);
  }
  for (const flag of Object.keys(program.flags)) {
    const { code, error } = await run(["inspect", `--${flag}x=1`]);
    assert.equal(code, usage);
    assert(error.includes(`did you mean --${flag}?`), error);
  }
});
