/** What a server tells of its own work. */

import assert from "node:assert/strict";
import type { ServerReport } from "../../proto/subspace_pb.ts";
import type { RawClient } from "./raw_client.ts";
import { test } from "./running_server.ts";

async function reportOf(client: RawClient): Promise<ServerReport> {
  const value = { channelName: "", wantReport: true };
  const { report, channels, error } = await client.request("getChannelInfo", {
    case: "getChannelInfo",
    value,
  });
  assert.deepEqual([channels, error], [[], ""]);
  return report!;
}

function counted({ counters }: ServerReport, name: string, of = ""): number {
  return Number(counters.find((it) => it.name === name && it.of === of)?.value ?? -1);
}

test("a server tells its requests by kind, its refusals by reason, and how it does", async ({ connect }) => {
  const client = await connect();
  const refused = { case: "removePublisher", value: { channelName: "/nowhere", publisherId: 3 } } as const;
  assert.notEqual((await client.request("removePublisher", refused)).error, "");
  const report = await reportOf(client);
  assert.deepEqual(
    ["init", "removePublisher", "getChannelInfo", "createPublisher"].map((kind) =>
      counted(report, "requests_total", kind)
    ),
    [1, 1, 1, -1],
  );
  assert.deepEqual(
    [
      "connections",
      "connections_peak",
      "connections_total",
      "orphans",
      "orphans_reaped_total",
      "queued_frames",
    ]
      .map((name) => counted(report, name)),
    [1, 1, 1, 0, 0, 0],
  );
  assert.equal(counted(report, "refusals_total", "request"), 1);
  assert(counted(report, "loop_stalls_total") >= 0);
  assert(counted(report, "fds") > 2 && counted(report, "fds") < counted(report, "fds_max"));
  assert.deepEqual([report.generation, report.shadows], [0n, []]);
});
