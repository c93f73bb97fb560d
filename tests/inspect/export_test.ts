import assert from "node:assert/strict";
import { differencesOf, renderDifferences } from "../../inspect/difference.ts";
import { healthOf, unreachable } from "../../inspect/health.ts";
import { renderMetrics } from "../../inspect/metrics.ts";
import type { Inspection } from "../../inspect/model.ts";
import { viewOfDump } from "../../inspect/shadow_view.ts";
import { plainStyle } from "../../inspect/table.ts";
import { send } from "../shm/local_channel.ts";
import { RecordedShadow, SERVER_PID } from "./recorded_shadow.ts";
import { sightOf, withTraffic } from "./sights.ts";

const sessionId = 4606991502932n;

async function inspection(shadow: RecordedShadow, dead: readonly number[] = []): Promise<Inspection> {
  using sight = await sightOf(shadow);
  const dump = { ...sight.dump, sessionId };
  return viewOfDump(dump, sight.source, { processExists: (pid) => !dead.includes(pid), nowNs: sessionId });
}

Deno.test("metrics tell of the system and of each channel", async () => {
  using shadow = withTraffic();
  const seen = await inspection(shadow, [SERVER_PID]);
  const lines = renderMetrics(seen, healthOf(seen)).split("\n");
  for (
    const line of [
      "# TYPE subspace_up gauge",
      "subspace_up 1",
      "subspace_server_up 0",
      "subspace_health_status 2",
      'subspace_findings{check="server"} 1',
      "subspace_channels 9",
      "# TYPE subspace_channel_messages_total counter",
      'subspace_channel_messages_total{channel="/robot/odometry"} 3',
      'subspace_channel_bytes_total{channel="/robot/odometry"} 11',
      'subspace_channel_drops_total{channel="/robot/odometry"} 0',
      'subspace_channel_slots_by_state{channel="/robot/odometry",state="held"} 1',
    ]
  ) assert(lines.includes(line), line);
  // Of a virtual channel bytes are not known.
  assert(!lines.some((line) => line.startsWith('subspace_channel_bytes_total{channel="/sensors/front"}')));
});

Deno.test("metrics have one HELP and TYPE for each name, and names that cannot break a line", async () => {
  using shadow = new RecordedShadow();
  const seen = await inspection(shadow);
  const [first] = seen.channels;
  const text = renderMetrics({ ...seen, channels: [{ ...first, name: 'a"b\\c\nd' }] }, healthOf(seen));
  assert.match(text, /^subspace_channel_publishers\{channel="a\\"b\\\\c\\nd"\} 1$/m);
  const helps = text.split("\n").filter((line) => line.startsWith("# HELP")).map((line) =>
    line.split(" ")[2]
  );
  assert.equal(new Set(helps).size, helps.length);
});

Deno.test("metrics of a system that nobody tells of say so", () => {
  const text = renderMetrics(null, unreachable("nobody"));
  assert.match(text, /^subspace_up 0$/m);
  assert.match(text, /^subspace_health_status 2$/m);
});

Deno.test("two looks at one system do not differ, whatever goes through it meanwhile", async () => {
  using shadow = withTraffic();
  const before = await inspection(shadow);
  send(shadow.publisher("/limited", 0), "more");
  const { differences } = differencesOf(before, JSON.parse(JSON.stringify(await inspection(shadow))), [
    "x",
    "y",
  ]);
  assert.deepEqual(differences.map(({ channel, what }) => [channel, what]), [["/limited", "numBuffers"]]);
});

Deno.test("what a server cannot know is no difference from its shadow", async () => {
  using shadow = new RecordedShadow();
  const a = await inspection(shadow);
  const channels = a.channels.map((channel) => ({ ...channel, options: null, buffers: null }));
  const b = { ...a, source: { ...a.source, kind: "server" as const }, channels: channels.slice(1) };
  assert.deepEqual(differencesOf(a, b, ["a", "b"]).differences.map(({ channel, what }) => [channel, what]), [
    ["/limited", ""],
  ]);
});

Deno.test("what differs is shown a line each", async () => {
  using shadow = new RecordedShadow();
  const a = await inspection(shadow);
  const channels = a.channels.filter(({ name }) => name !== "/split").map((channel) =>
    channel.name !== "/robot/odometry" ? channel : {
      ...channel,
      type: "other",
      subscribers: channel.subscribers.slice(1),
    }
  );
  const b = {
    ...a,
    session: { ...a.session!, id: "5" },
    channels: [...channels, { ...channels[0], name: "/new" }],
  };
  const found = differencesOf(a, b, ["/a", "b.json"]);
  assert.equal(
    renderDifferences(found, { style: plainStyle }),
    `a /a
b b.json
! session.id: "4606991502932" in a, "5" in b
+ /new only in b
! /robot/odometry type: "robot.Odometry" in a, "other" in b
- /robot/odometry subscribers[1] only in a
- /split only in a
`,
  );
  assert.equal(renderDifferences(differencesOf(a, a, ["a", "a"]), { style: plainStyle }), "");
});
