import assert from "node:assert/strict";
import { detailOf, lookAtChannel, renderChannel } from "../../inspect/channel_view.ts";
import { fdsOf, renderFds } from "../../inspect/fds.ts";
import { healthOf, renderHealth, unreachable } from "../../inspect/health.ts";
import type { Inspection } from "../../inspect/model.ts";
import { renderChannels, renderUsers } from "../../inspect/report.ts";
import { viewOfDump } from "../../inspect/shadow_view.ts";
import { displayWidth, plainStyle } from "../../inspect/table.ts";
import { usersOf } from "../../inspect/users.ts";
import { withBalancedFds } from "../open_fds.ts";
import { send } from "../shm/local_channel.ts";
import { RecordedShadow, SERVER_PID } from "./recorded_shadow.ts";
import { sightOf, withTraffic } from "./sights.ts";

const options = { width: 80, style: plainStyle };

/** A recorded system on which these processes are dead. */
async function inspection(shadow: RecordedShadow, dead: readonly number[] = []): Promise<Inspection> {
  using sight = await sightOf(shadow);
  const surroundings = { processExists: (pid: number) => !dead.includes(pid), nowNs: 4607991502932n };
  return viewOfDump(sight.dump, sight.source, surroundings);
}

Deno.test("channels and users are tables of their own", async () => {
  using shadow = withTraffic();
  const seen = await inspection(shadow);
  const channels = renderChannels(seen, options);
  assert.match(channels, /^\/robot\/odometry +2 +1 +2 +3 +11 B +5 B +0 +robot\.O…etry$/m);
  assert.doesNotMatch(channels, /USERS OF|SLOTS OF/);
  const { schemaVersion, users } = usersOf(seen);
  assert.equal(schemaVersion, 1);
  assert.equal(users.length, 13);
  assert.deepEqual(
    users.filter(({ channel }) => channel === "/robot/odometry").map(({ role, id }) => `${role} ${id}`),
    ["publisher 0", "subscriber 1", "subscriber 2"],
  );
  const lines = renderUsers(seen, options).split("\n");
  assert(lines.some((line) => /^\/robot\/odometry +1 +sub +4712 +alive +reliable, .*$/.test(line)));
  for (const line of lines) assert(displayWidth(line) <= 80, line);
});

Deno.test("a channel from near shows who has which slot, the newest message first", () =>
  withBalancedFds(async () => {
    using shadow = withTraffic();
    using sight = await sightOf(shadow);
    const record = sight.dump.channels.get("/robot/odometry")!;
    const at = (nowNs: bigint) => lookAtChannel(record, () => nowNs);
    const before = at(1_000_000_000n);
    send(shadow.publisher("/robot/odometry", 3), "four");
    const newest = Math.max(...at(0n).report.slots.map(({ timestampNs }) => timestampNs));
    const now = { ...at(3_000_000_000n), atNs: 3_000_000_000n };
    const detail = detailOf(sight, "/robot/odometry", before, now)!;
    assert.deepEqual(detail.rates, { overMs: 2000, messages: 0.5, bytes: 2, drops: 0 });
    assert.deepEqual(
      detail.slotMap!.slice(0, 5).map(({ state, newest, owner, holders, ordinal, messageBytes }) => [
        state,
        newest,
        owner,
        holders,
        ordinal,
        messageBytes,
      ]),
      [
        ["held", false, null, [1], 1, 3],
        ["published", false, null, [], 2, 3],
        ["published", false, null, [], 3, 5],
        ["published", true, null, [], 4, 4],
        ["owned", false, 3, [], 0, 0],
      ],
    );
    assert(newest > 0 && detail.slotMap!.length === 8);
    assert.equal(detailOf(sight, "/nowhere", null, now), null);
    const text = renderChannel(detail, options);
    assert.match(text, /^0\.5 messages\/s, 2 B\/s, 0 drops\/s over 2 s$/m);
    assert.match(text, /^ {5}0 {2}HuuNo\.\.\.$/m);
    assert.match(text, /^ {3}0 {2}held +subscriber 1 +1 +0 ms +3 B +256 B +0$/m);
    assert.match(text, /^and 3 free slots$/m);
    for (const line of text.split("\nDEAD")[0].split("\n")) assert(displayWidth(line) <= 80, line);
  }));

Deno.test("a virtual channel shows only its own slots", async () => {
  using shadow = new RecordedShadow();
  send(shadow.publisher("/sensors/front", 0, { vchanId: 0 }), "f");
  send(shadow.publisher("/sensors/back", 1, { vchanId: 1 }), "b");
  using sight = await sightOf(shadow);
  const look = lookAtChannel(sight.dump.channels.get("/sensors/back")!, () => 0n);
  const { slotMap } = detailOf(sight, "/sensors/back", null, look)!;
  assert.deepEqual(slotMap!.map(({ state, vchanId }) => [state, vchanId]), [["published", 1], ["owned", 1]]);
});

Deno.test("every fd of a shadow is listed with its owner", async () => {
  using shadow = new RecordedShadow();
  using sight = await sightOf(shadow);
  const kept = fdsOf(sight.dump, sight.source);
  const odometry = kept.fds.filter(({ channel }) => channel === "/robot/odometry")
    .map(({ owner, pid, purpose, kind }) => [owner, pid, purpose, kind]);
  assert.deepEqual(odometry.slice(0, 4), [
    [null, null, "channel block", "memory"],
    [null, null, "buffer block", "memory"],
    ["publisher 0", 4711, "poll", "anonymous"],
    ["publisher 0", 4711, "trigger", "anonymous"],
  ]);
  assert.deepEqual(kept.fds[0], {
    channel: null,
    owner: null,
    pid: null,
    purpose: "system block",
    kind: "memory",
    inode: String(sight.dump.scb!.stat().inode),
    bytes: 14336,
  });
  assert.equal(kept.fds.length, 51);
  const text = renderFds(kept, { ...options, width: Infinity });
  assert.match(text, /^Shadow \/shadow \(pid 4242\) keeps 51 fds, /);
  assert.match(text, /^\/split +buffer 0 slot 1 +memory +\d+ +4\.0 KiB$/m);
});

Deno.test("health is one verdict, with a line a finding that says what to do", async () => {
  using shadow = withTraffic();
  const fine = healthOf(await inspection(shadow));
  assert.deepEqual([fine.status, fine.findings.map(({ check }) => check)], ["ok", ["unheard"]]);
  const degraded = healthOf(await inspection(shadow, [4712]));
  assert.deepEqual([degraded.status, degraded.findings[0].check], ["degraded", "dead-process"]);
  const down = healthOf(await inspection(shadow, [SERVER_PID]));
  assert.equal(down.status, "down");
  assert.equal(
    renderHealth(down, { ...options, width: Infinity }),
    "DOWN  shadow /shadow (pid 4242)\n" +
      `DOWN      the server (pid ${SERVER_PID}) is gone; start subspace-server with --shadow_socket naming this ` +
      "shadow: it goes on where the other one died\n" +
      "NOTE      /split: 1 publisher and no subscriber; start whoever is to read it, if anybody is\n",
  );
  assert.match(
    renderHealth(down, options),
    /^DOWN {6}the server .* subspace-server with\n {10}--shadow_socket naming this .*\n {10}died\nNOTE/m,
  );
  assert.match(
    renderHealth(unreachable("Cannot inspect /x: nobody"), options),
    /^DOWN\nDOWN +Cannot inspect \/x/,
  );
});

Deno.test("a channel whose slots are all in use is not healthy", async () => {
  using shadow = new RecordedShadow();
  for (let id = 10; id < 18; id++) shadow.publisher("/robot/odometry", id);
  const { status, findings } = healthOf(await inspection(shadow));
  assert.equal(status, "degraded");
  assert.deepEqual([findings[0].check, findings[0].channel, findings[0].text], [
    "full",
    "/robot/odometry",
    "all 8 slots are in use",
  ]);
});
