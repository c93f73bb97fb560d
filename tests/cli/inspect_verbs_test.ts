/**
 * Every verb of the inspector, its model and what it prints, at what a C++ shadow sent and at a shadow of ours that has
 * the same. `publish` and `replay` need a server: see `inspect_test.ts` and `tests/interop`.
 */

import assert from "node:assert/strict";
import { ExitCode } from "../../cli/exit_codes.ts";
import { RecordingReader } from "../../inspect/recording.ts";
import { ownShadow, referenceShadow, shadowWithAside } from "../inspect/shadows.ts";
import { GONE_PID, RecordedShadow, SERVER_PID } from "../inspect/recorded_shadow.ts";
import { withTraffic } from "../inspect/sights.ts";
import { inspector, test, whileTalking } from "./inspector.ts";

const { ok, down, failure } = ExitCode;
const CHANNEL = "/robot/odometry";
const server = GONE_PID + SERVER_PID;
const subscriber = GONE_PID + 4712;
const mayWrite = Deno.permissions.querySync({ name: "write" }).state === "granted" &&
  Deno.permissions.querySync({ name: "read" }).state === "granted";

interface Expected {
  readonly operands?: readonly string[];
  readonly code?: number;
  /** A part of what `--json` prints. */
  readonly model: Record<string, unknown>;
  /** Lines of what is printed. */
  readonly lines: readonly RegExp[];
}

const odometry = {
  name: CHANNEL,
  type: "robot.Odometry",
  numSlots: 8,
  traffic: { messages: 3, bytes: 11, maxMessageBytes: 5, drops: 0 },
};
const channelLine = /^\/robot\/odometry {2,}2 {2,}1 {2,}2 {2,}3 {2,}11 B {2,}5 B {2,}0 {2}robot\.Odometry$/m;
const userLine = new RegExp(
  `^/robot/odometry {2,}1 {2}sub {2,}${subscriber} {2}GONE {5}reliable, 2 unread, holds slot 0`,
  "m",
);

/** What is seen of a system whose server is gone, through whatever shadow. */
const looks: Readonly<Record<string, Expected>> = {
  inspect: {
    model: {
      session: { server: { pid: server, alive: false } },
      channels: { [CHANNEL]: { ...odometry, slots: { free: 5, held: 1, published: 2, newestOrdinal: 3 } } },
    },
    lines: [channelLine, userLine, /^\/robot\/odometry {2,}8 {2}.* 5 {2,}0 {2,}1 {2,}2 {2,}0 {2,}3$/m],
  },
  channels: { model: { channels: { [CHANNEL]: odometry } }, lines: [channelLine] },
  channel: {
    operands: [CHANNEL],
    model: { channel: odometry, rates: { messages: 0 } },
    lines: [/^ {5}0 {2}HuN\.{5}$/m, /^ {3}0 {2}held {12}subscriber 1 {2,}1 {2}/m],
  },
  users: {
    model: { users: { [`${CHANNEL} subscriber 1`]: { reliable: true, unread: 2, holds: [0] } } },
    lines: [userLine],
  },
  fds: {
    model: { fds: { [`${CHANNEL} retirement write`]: { owner: "publisher 0", kind: "anonymous" } } },
    lines: [
      / keeps 51 fds, \d+ KiB of memory$/m,
      /^\/robot\/odometry {2,}publisher 0 {2,}\d+ {2}retirement write {2}/m,
      /^\/split {2,}buffer 0.* {2}memory {2,}\d+ {2}4\.0 KiB$/m,
    ],
  },
  watch: {
    model: { server: { pid: server, alive: false }, attention: { unheard: ["/split"] } },
    lines: [/^NO SUBSCRIBER {2}\/split$/m, /^\/robot\/odometry {2,}1 {2,}2 {2,}- {2,}- {2,}- {2,}3 {2,}0$/m],
  },
  health: {
    code: down,
    model: { status: "down" },
    lines: [
      /^DOWN {6}the server \(pid \d+\) is gone; start subspace-server /m,
      /^NOTE {6}\/split: 1 publisher/m,
    ],
  },
};

const shadows = { "a recorded C++ shadow": referenceShadow, "a shadow of ours": ownShadow };

for (const [whose, listen] of Object.entries(shadows)) {
  test(`all verbs that look, at ${whose}: their models, and what they print`, async () => {
    using recorded = withTraffic();
    using at = await listen(recorded);
    for (const [verb, { operands = [], code = ok, model, lines }] of Object.entries(looks)) {
      const args = [verb, ...operands, `--socket=${at.socket}`, "--count=1", "--interval=1ms"];
      const data = await inspector([...args, "--json"]);
      assert.deepEqual([data.code, data.error], [code, ""], verb);
      assert.partialDeepStrictEqual(keyed(JSON.parse(data.out)), model, verb);
      const text = await inspector(args);
      assert.deepEqual([text.code, text.error], [code, ""], verb);
      for (const line of lines) assert.match(text.out, line, verb);
    }
  });

  test(`followers of a channel, at ${whose}: their models, and what they print`, async () => {
    using recorded = new RecordedShadow();
    using at = await listen(recorded);
    const follow = (verb: string, ...flags: string[]) =>
      whileTalking(
        recorded,
        CHANNEL,
        () => inspector([verb, CHANNEL, `--socket=${at.socket}`, "--count=1", ...flags]),
      );
    const tail = await follow("tail", "--json");
    assert.partialDeepStrictEqual(JSON.parse(tail.out), {
      channel: CHANNEL,
      bytes: 5,
      base64: btoa("hello"),
    });
    assert.match((await follow("tail", "--format=text")).out, /^\d+ {2}5 B {2}hello\n$/);
    const hz = JSON.parse((await follow("hz", "--json", "--interval=30ms")).out);
    assert(hz.channel === CHANNEL && hz.messages > 0 && hz.perSecond > 0);
    assert.match((await follow("hz", "--interval=30ms")).out, /^\/robot\/odometry {2}[\d.]+ Hz/);
  });

  test(`metrics, shadows and counters, at ${whose}`, async () => {
    using recorded = withTraffic();
    using at = await listen(recorded);
    const ours = listen === ownShadow, args = [`--socket=${at.socket}`, "--server=/nowhere"];
    const metrics = await inspector(["metrics", ...args]);
    assert.match(metrics.out, /^subspace_channel_messages_total\{channel="\/robot\/odometry"\} 3$/m);
    assert.match(metrics.out, /^subspace_server_up 0$/m);
    assert.equal(metrics.out.includes("subspace_shadow_events_total"), ours);
    const list = JSON.parse((await inspector(["shadows", ...args, "--json"])).out);
    assert.deepEqual(
      list.shadows.map((it: { kind: string; numChannels: number }) => [it.kind, it.numChannels]),
      [
        [ours ? "ours" : "reference", 9],
      ],
    );
    const state = ours
      ? / in step {2,}0 {2}\d+ {2,}\d+ {2,}9 {2}new$/m
      : / reference {2,}- {2,}- {2,}- {2,}9 {2}-$/m;
    assert.match((await inspector(["shadows", ...args])).out, state);
    const counters = await inspector(["counters", ...args, "--json"]);
    if (ours) assert.equal(JSON.parse(counters.out).programs[0].socket, at.socket);
    else assert.deepEqual([counters.code, counters.out], [failure, ""]);
    if (ours) assert.match((await inspector(["counters", ...args])).out, / full_syncs_total {2,}new {2,}1$/m);
  });
}

test("a C++ shadow and one of ours with the same state do not differ, and a difference is one in both", async () => {
  using recorded = withTraffic();
  using theirs = await referenceShadow(recorded);
  using ours = await ownShadow(recorded);
  assert.deepEqual(await inspector(["diff", theirs.socket, ours.socket]), { code: ok, out: "", error: "" });
  using other = new RecordedShadow();
  using changed = await ownShadow(other);
  const { code, out } = await inspector(["diff", theirs.socket, changed.socket]);
  assert.equal(code, ExitCode.different);
  assert.match(out, /^! session\.id: "\d+" in .*, "\d+" in /m);
  const data = await inspector(["diff", theirs.socket, changed.socket, "--json"]);
  assert(JSON.parse(data.out).differences.length > 0);
});

test("what is kept aside is rolled back to, and forgotten", async () => {
  using recorded = new RecordedShadow();
  using aside = await shadowWithAside(recorded);
  const { sessionId } = recorded, socket = `--socket=${aside.socket}`;
  assert.deepEqual(await inspector(["rollback", socket, "--yes"]), {
    code: ok,
    out: `Rolled back ${aside.socket}: 9 channels of session ${sessionId}\n`,
    error: "",
  });
  const forgotten = await inspector(["forget", socket, "--yes", "--json"]);
  assert.deepEqual(JSON.parse(forgotten.out), {
    schemaVersion: 1,
    socket: aside.socket,
    done: "forget",
    channels: 9,
  });
  assert.deepEqual([aside.shadow.state.sessionId, aside.shadow.previous], [sessionId, null]);
});

for (const [whose, listen] of Object.entries(shadows)) {
  test(
    `a recording has what went through a channel, at ${whose}${mayWrite ? "" : " (skipped: may not write)"}`,
    async () => {
      using recorded = new RecordedShadow();
      using at = await listen(recorded);
      const file = await Deno.makeTempFile();
      try {
        const args = ["record", CHANNEL, file, `--socket=${at.socket}`, "--count=2"];
        const { code, out } = await whileTalking(recorded, CHANNEL, () => inspector([...args, "--json"]));
        assert.equal(code, ok);
        assert.partialDeepStrictEqual(JSON.parse(out), { file, channels: [CHANNEL], messages: 2 });
        const text = await whileTalking(recorded, CHANNEL, () => inspector(args));
        assert.match(text.out, /^Recorded 2 messages, \d+ B(, .* too fast to see)? to /);
        using opened = await Deno.open(file);
        const reader = new RecordingReader(opened, (await Deno.stat(file)).size);
        const seen: string[] = [];
        for (let it = reader.next(); it !== null; it = reader.next()) {
          if (it.kind === "message") seen.push(new TextDecoder().decode(it.message.payload));
        }
        assert.deepEqual([reader.problem, seen], [null, ["hello", "hello"]]);
      } finally {
        await Deno.remove(file);
      }
    },
    !mayWrite,
  );
}

/** A model whose lists are objects by what tells their items apart, so that one item can be expected. */
function keyed(model: Record<string, unknown>): Record<string, unknown> {
  const keys = {
    channels: ({ name }: Item) => name,
    users: ({ channel, role, id }: Item) => `${channel} ${role} ${id}`,
    fds: ({ channel, purpose }: Item) => `${channel} ${purpose}`,
  };
  return Object.fromEntries(
    Object.entries(model).map(([name, value]) => {
      const keyOf = Object.hasOwn(keys, name) ? keys[name as keyof typeof keys] : null;
      return [
        name,
        keyOf === null ? value : Object.fromEntries((value as Item[]).map((it) => [keyOf(it), it])),
      ];
    }),
  );
}
type Item = Record<string, unknown>;
