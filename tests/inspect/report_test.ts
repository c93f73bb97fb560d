import assert from "node:assert/strict";
import { Mapping } from "../../ffi/mapping.ts";
import type { Inspection } from "../../inspect/model.ts";
import { renderReport } from "../../inspect/report.ts";
import { viewOfDump } from "../../inspect/shadow_view.ts";
import { colourStyle, displayWidth, plainStyle } from "../../inspect/table.ts";
import { Ccb, Slot } from "../../shm/layout.ts";
import { closeDump } from "../../wire/state_dump.ts";
import { withBalancedFds } from "../open_fds.ts";
import { send } from "../shm/local_channel.ts";
import { RecordedShadow, SERVER_PID } from "./recorded_shadow.ts";

const source = { kind: "shadow", socket: "/tmp/subspace_shadow", pid: 4242 } as const;
const sessionId = 4606991502932n;

/** Some traffic on the recorded channels. */
function busy(): RecordedShadow {
  const shadow = new RecordedShadow();
  const holder = shadow.subscriber("/robot/odometry", 1, { reliable: true });
  shadow.subscriber("/robot/odometry", 2);
  const odometry = shadow.publisher("/robot/odometry", 0, { reliable: true });
  for (const text of ["one", "two", "three"]) send(odometry, text);
  holder.readNext();
  shadow.subscriber("/sensors", 2);
  const front = shadow.publisher("/sensors/front", 0, { vchanId: 0 });
  const back = shadow.publisher("/sensors/back", 1, { vchanId: 1, slotBytes: 1024 });
  for (let i = 0; i < 4; i++) send(front, "f".repeat(100));
  send(back, "b".repeat(1000));
  return shadow;
}

async function view(shadow: RecordedShadow, dead: readonly number[] = []): Promise<Inspection> {
  const dump = await shadow.dump();
  try {
    const nowNs = sessionId + 90_000_000_000n;
    return viewOfDump(dump, source, { processExists: (pid) => !dead.includes(pid), nowNs });
  } finally {
    closeDump(dump);
  }
}

const text = (inspection: Inspection, width = 100) => renderReport(inspection, { width, style: plainStyle });
const findings = ({ findings }: Inspection) =>
  findings.map(({ kind, channel, text }) => `${kind} ${channel ?? "-"}: ${text}`);
const channelOf = ({ channels }: Inspection, name: string) =>
  channels.find((channel) => channel.name === name)!;

Deno.test("a report shows a recorded system on one screen of 100 columns", async () => {
  using shadow = busy();
  const report = text(await view(shadow, [4713]));
  assert.equal(
    report,
    `\
Shadow /tmp/subspace_shadow (pid 4242)
Session 4606991502932, 1 min 30 s old, server running (pid 13630)
9 channels, 7 publishers, 6 subscribers; see 1 finding below

CHANNEL                      ID  PUBS  SUBS  MESSAGES    BYTES  LARGEST  DROPS  TYPE
/limited                      3     1     1         0      0 B      0 B      0
/nobody/publishes             5     0     1         0      0 B      0 B      0
/robot/odometry               2     1     2         3     11 B      5 B      0  robot.Odometry
/sensors                      4     0     1         5  1.4 KiB   1000 B      0
  /sensors/back             4.1     1     1         1        -        -      -
  /sensors/front            4.0     1     0         4        -        -      -
/split                        6     1     0         0      0 B      0 B      0
/subspace/ChannelDirectory    0     1     0         0      0 B      0 B      0  subspace.Cha…rectory
/subspace/Statistics          1     1     0         0      0 B      0 B      0  subspace.Statistics

SLOTS OF                    SLOTS     SIZE  BUFFERS  FREE  OWNED  HELD  UNREAD  RETIRED  NEWEST
/limited                        8    256 B        0     8      0     0       0        0       0
/robot/odometry                 8    256 B        1     5      0     1       2        0       3
/sensors                       16  1.0 KiB        2     9      2     0       5        0       4
  /sensors/back                                                1     0       1        0       1
  /sensors/front                                               1     0       4        0       4
/split                          4    256 B        0     4      0     0       0        0       0
/subspace/ChannelDirectory     32  1.0 KiB        0    32      0     0       0        0       0
/subspace/Statistics           32  1.0 KiB        0    32      0     0       0        0       0

OPTIONS OF         OPTIONS
/limited           at most 2 publishers, at most 3 subscribers, queues 63 KiB
/nobody/publishes  placeholder
/sensors           multiplexer
/split             split buffers

USERS OF                    ID  ROLE    PID  PROCESS  DETAILS
/limited                     0  pub    4711  alive    local, fixed-size
/limited                     1  sub    4712  alive    queue of 32
/nobody/publishes            0  sub    4712  alive
/robot/odometry              0  pub    4711  alive    reliable, retirement pipe, up to 2 leases
/robot/odometry              1  sub    4712  alive    reliable, 2 unread, holds sl… up to 2 messages
/robot/odometry              2  sub    4713  GONE     3 unread
/sensors                     2  sub    4712  alive    5 unread
  /sensors/back              1  pub    4711  alive    owns slot 6
  /sensors/back              3  sub    4712  alive
  /sensors/front             0  pub    4711  alive    owns slot 5
/split                       0  pub    4711  alive
/subspace/ChannelDirectory   0  pub   13630  alive
/subspace/Statistics         0  pub   13630  alive

SPLIT BUFFERS OF  BUFFER  PARTS  WITH FD   BYTES  ALLOCATOR
/split                 0      5        4  20 KiB  split_shm

DEAD  process 4713 is gone: it was subscriber 2 of /robot/odometry
`,
  );
});

Deno.test("no line of a table is wider than the terminal, and all of it is there without one", async () => {
  using shadow = busy();
  const inspection = await view(shadow);
  for (const width of [80, 90, 100, 200]) {
    for (const line of text(inspection, width).split("\n")) assert(displayWidth(line) <= width, line);
  }
  const whole = text(inspection, Infinity);
  assert.match(whole, /subspace\.ChannelDirectory$/m);
  assert.match(whole, /reliable, 2 unread, holds slot 0, up to 2 messages$/m);
  assert.doesNotMatch(whole, /…/);
});

Deno.test("colours change nothing but colours", async () => {
  using shadow = busy();
  const inspection = await view(shadow, [4711, SERVER_PID]);
  const coloured = renderReport(inspection, { width: 100, style: colourStyle });
  assert(coloured.includes("\x1b[31;1mserver DOWN"));
  // deno-lint-ignore no-control-regex
  assert.equal(coloured.replace(/\x1b\[[\d;]*m/g, ""), text(inspection));
});

Deno.test("the model is plain data that JSON keeps as it is", async () => {
  using shadow = busy();
  const inspection = await view(shadow, [4713]);
  assert.deepEqual(JSON.parse(JSON.stringify(inspection)), inspection);
  assert.equal(inspection.schemaVersion, 1);
  assert.equal(inspection.session?.id, "4606991502932");
  assert.deepEqual(channelOf(inspection, "/limited").options, {
    local: false,
    reliable: false,
    fixedSize: false,
    splitBuffers: false,
    splitBuffersOverBridge: false,
    checksumBytes: 4,
    metadataBytes: 0,
    queueArenaBytes: 64000,
    maxPublishers: 2,
    maxSubscribers: 3,
  });
  assert.deepEqual(channelOf(inspection, "/sensors").buffers, [
    { bytes: 5120, slotBytes: 256, slotsAssigned: 0 },
    { bytes: 17408, slotBytes: 1024, slotsAssigned: 7 },
  ]);
  assert.deepEqual(channelOf(inspection, "/sensors/front").slots, {
    free: 0,
    owned: 1,
    held: 0,
    published: 4,
    retired: 0,
    newestOrdinal: 4,
  });
});

Deno.test("a dead server is one finding, not one for each of its channels", async () => {
  using shadow = new RecordedShadow();
  const inspection = await view(shadow, [SERVER_PID]);
  assert.deepEqual(inspection.session?.server, { pid: SERVER_PID, alive: false });
  assert.deepEqual(findings(inspection), [
    `dead -: the server is down: its process (${SERVER_PID}) is gone`,
  ]);
});

Deno.test("a dead process is one finding, however many users it had", async () => {
  using shadow = new RecordedShadow();
  assert.deepEqual(findings(await view(shadow, [4711])), [
    "dead -: process 4711 is gone: it was publisher 0 of /robot/odometry, publisher 0 of /split and 3 more",
  ]);
});

Deno.test("users that the server does not count are a mismatch", async () => {
  using shadow = new RecordedShadow();
  shadow.scb.counters(shadow.idOf("/robot/odometry")).countSubscriber(-1, true);
  assert.deepEqual(findings(await view(shadow)), [
    "mismatch /robot/odometry: the shadow lists 2 subscribers, the server counts 1",
  ]);
});

Deno.test("dropped messages are a finding", async () => {
  using shadow = busy();
  using ccb = Mapping.map(shadow.blocks("/robot/odometry").ccbFd, Ccb.slots);
  ccb.view.setUint32(Ccb.totalDrops, 7, true);
  assert.deepEqual(findings(await view(shadow)), ["drops /robot/odometry: 7 messages were dropped"]);
});

Deno.test("damage is told, what can be read is shown, and the other channels are untouched by it", async () => {
  using shadow = busy();
  using odometry = Mapping.map(shadow.blocks("/robot/odometry").ccbFd, Ccb.slots + 8 * Slot.bytes);
  odometry.view.setUint32(Ccb.version, 9, true);
  for (let slot = 0; slot < 8; slot++) {
    odometry.view.setInt32(Ccb.slots + slot * Slot.bytes + Slot.id, -5, true);
  }
  const inspection = await view(shadow);
  assert.deepEqual(findings(inspection), [
    "damage /robot/odometry: version 9 instead of 4",
    "damage /robot/odometry: slot 0 calls itself -5",
    "damage /robot/odometry: slot 1 calls itself -5",
    "damage /robot/odometry: slot 2 calls itself -5",
    "damage /robot/odometry: and 5 more contradictions",
  ]);
  assert.equal(channelOf(inspection, "/robot/odometry").traffic?.messages, 3);
  assert.equal(channelOf(inspection, "/sensors").traffic?.messages, 5);
});

Deno.test("names cannot move the cursor", async () => {
  using shadow = new RecordedShadow();
  const inspection = await view(shadow);
  const [first, ...rest] = inspection.channels;
  const report = text({ ...inspection, channels: [{ ...first, name: "/a\x1b[2J\n\u202eb" }, ...rest] });
  assert.match(report, /\/a\\u\{1b\}\[2J\\u\{a\}\\u\{202e\}b/);
});

Deno.test("looking at a system changes none of its memory and keeps no fd", () =>
  withBalancedFds(async () => {
    using shadow = busy();
    const bytes = () => {
      const { ccbFd, bytes } = shadow.blocks("/robot/odometry");
      using mapping = Mapping.map(ccbFd, bytes, { writable: false });
      return mapping.bytes.slice();
    };
    const before = bytes();
    await view(shadow);
    assert.deepEqual(bytes(), before);
  }));
