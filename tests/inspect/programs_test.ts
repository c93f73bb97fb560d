/** Server and shadows as they say of themselves: found from any of them, in step or not, beside the reference's. */

import assert from "node:assert/strict";
import { countersOf, renderCounters } from "../../inspect/counters.ts";
import { healthOf } from "../../inspect/health.ts";
import { inspect } from "../../inspect/inspect.ts";
import { renderMetrics } from "../../inspect/metrics.ts";
import type { Programs } from "../../inspect/model.ts";
import { programsOf } from "../../inspect/programs.ts";
import { renderReport } from "../../inspect/report.ts";
import { renderShadows } from "../../inspect/shadows.ts";
import { displayWidth, plainStyle } from "../../inspect/table.ts";
import { Server } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { Peer } from "./peer.ts";
import { RecordedShadow } from "./recorded_shadow.ts";
import { ownShadow } from "./shadows.ts";

const options = { width: 80, style: plainStyle };

interface Stage {
  readonly socket: string;
  readonly server: Server;
  readonly names: readonly string[];
  readonly shadows: readonly Shadow[];
}

/** A server with two shadows. */
async function withSystem(run: (stage: Stage) => Promise<void>): Promise<void> {
  await withBalancedFds(async () => {
    const socket = uniqueSocket("server"), names = [uniqueSocket("one"), uniqueSocket("two")];
    const shadows = names.map((name) => Shadow.start({ socket: name }));
    const server = await Server.start({
      socket,
      shadowSocket: names[0],
      secondaryShadowSocket: names[1],
      statisticsPeriodMs: 1_000_000,
    });
    try {
      await run({ socket, server, names, shadows });
    } finally {
      for (const shadow of shadows) shadow.stop();
      await server.stop();
    }
  });
}

function states({ shadows }: Programs) {
  return shadows.map(({ socket, label, kind, inStep, lag, behind }) => [
    socket,
    label,
    kind,
    inStep,
    lag,
    behind,
  ]);
}

Deno.test("server and shadows are found from any of them, and are in step", () =>
  withSystem(async ({ socket, server, names }) => {
    const expected = [
      [names[0], "primary", "ours", true, 0, "server"],
      [names[1], "secondary", "ours", true, 0, "server"],
    ];
    for (const name of [names[0], names[1], socket]) {
      const programs = await programsOf([name]);
      assert.deepEqual(states(programs), expected, name);
      assert.equal(programs.server?.socket, socket);
    }
    const { shadows } = await programsOf(names);
    assert.deepEqual(
      shadows.map(({ sessionId, lastFullSync, fullSyncs, connected, previous }) => [
        sessionId,
        lastFullSync,
        fullSyncs,
        connected,
        previous,
      ]),
      names.map(() => [String(server.sessionId), "start", 1, true, null]),
    );
  }));

Deno.test("what is not in step is said wherever one looks", () =>
  withSystem(async ({ names, shadows }) => {
    shadows[1].stop();
    const seen = await inspect(names[0]);
    assert.deepEqual(states(seen.programs!).map((it) => it.slice(2, 4)), [["ours", true], ["gone", false]]);
    const { status, findings } = healthOf(seen);
    assert.equal(status, "degraded");
    assert.match(findings[0].text, /^the shadow .* is gone \(nobody listens there/);
    assert.match(renderReport(seen, { ...options, width: Infinity }), /shadows NOT in step: .* is gone$/m);
    const metrics = renderMetrics(seen, healthOf(seen));
    assert(metrics.includes(`subspace_shadow_in_step{shadow="${names[1]}"} 0\n`));
    assert(metrics.includes(`subspace_shadow_events_total{shadow="${names[0]}"}`));
    assert.match(metrics, /^subspace_server_requests_total\{kind="getChannelInfo"\} \d+$/m);
  }));

Deno.test("without a server shadows are compared with the freshest of them", () =>
  withSystem(async ({ server, names, shadows }) => {
    await server.stop();
    const programs = await programsOf(names);
    assert.equal(programs.server, null);
    assert.deepEqual(states(programs).map((it) => it.slice(3)), names.map(() => [true, 0, "freshest"]));
    assert.deepEqual(programs.shadows.map(({ connected }) => connected), [false, false]);
    shadows[0].stop();
    using empty = Shadow.start({ socket: names[0] });
    assert.equal(empty.connections, 0);
    assert.deepEqual((await programsOf(names)).shadows.map(({ inStep }) => inStep), [false, true]);
  }));

Deno.test("a server that listens and answers nobody is down, although its process is there", () =>
  withBalancedFds(async () => {
    using recorded = new RecordedShadow();
    using server = new Peer(() => {});
    using at = await ownShadow(recorded, server.socket);
    let seen;
    // However long the shadow takes: the server never answers.
    for (let timeoutMs = 100; seen?.programs?.shadows[0]?.kind !== "ours"; timeoutMs *= 2) {
      seen = await inspect(at.socket, { timeoutMs });
    }
    assert.deepEqual([seen.programs!.server, seen.programs!.serverSilent], [null, true]);
    const alive = { ...seen, session: { ...seen.session!, server: { pid: 7, alive: true } } };
    const { status, findings } = healthOf(alive);
    assert.deepEqual([status, findings[0].text], ["down", "the server answers nobody"]);
    assert.match(
      renderReport(alive, { ...options, width: Infinity }),
      /, server answers NOBODY \(pid 7\), 1 shadow in step$/m,
    );
    const shadows = renderShadows({ schemaVersion: 1, ...seen.programs! }, options);
    assert.match(shadows, /^The server answers nobody: lags are behind the freshest shadow\n/);
    for (let timeoutMs = 100; seen.programs!.serverSilent; timeoutMs *= 2) {
      server[Symbol.dispose]();
      seen = await inspect(at.socket, { timeoutMs });
    }
    assert.equal(seen.programs!.server, null);
  }));

Deno.test("a shadow of the reference's is shown as far as it tells, and is not harmed", () =>
  withBalancedFds(async () => {
    using recorded = new RecordedShadow();
    using peer = new Peer((connection) => recorded.send(connection));
    const seen = await inspect(peer.socket);
    const [shadow] = seen.programs!.shadows;
    assert.deepEqual([shadow.kind, shadow.numChannels, shadow.inStep, shadow.position], [
      "reference",
      seen.channels.length,
      null,
      null,
    ]);
    assert.equal(peer.connections, 1);
    assert.deepEqual(countersOf(seen.programs!).programs, []);
  }));

const told: Programs = {
  server: {
    socket: "/server",
    pid: 7,
    generation: "40",
    offset: 9,
    counters: [
      { name: "requests_total", label: "kind", of: "init", value: 2 },
      { name: "fds", label: null, of: null, value: 95 },
      { name: "fds_max", label: null, of: null, value: 100 },
      { name: "refusals_total", label: "reason", of: "access", value: 3 },
      { name: "loop_stall_worst_ms", label: null, of: null, value: 2500 },
    ],
  },
  serverSilent: false,
  shadows: [{
    socket: "/one",
    label: "primary",
    kind: "ours",
    problem: null,
    pid: 8,
    sessionId: "1",
    numChannels: 3,
    position: { generation: "40", offset: 5, complete: true },
    connected: true,
    lag: 4,
    behind: "server",
    inStep: false,
    lastFullSync: "behind",
    fullSyncs: 2,
    partialSyncs: 1,
    previous: { sessionId: "1", numChannels: 1 },
    counters: [],
  }],
};

Deno.test("shadows and counters are tables, and fit their terminal", () => {
  assert.equal(
    renderShadows({ schemaVersion: 1, ...told }, { ...options, width: 120 }),
    "Server /server (pid 7), generation 40, offset 9\n\n" +
      "SHADOW        PID  STATE   LAG  GENERATION  OFFSET  CHANNELS  FULL SYNC  ASIDE\n" +
      "primary /one    8  BEHIND    4          40       5         3  behind         1\n",
  );
  for (const line of renderShadows({ schemaVersion: 1, ...told }, options).split("\n")) {
    assert(displayWidth(line) <= 80, line);
  }
  assert.equal(
    renderCounters(countersOf(told), options),
    "PROGRAM         COUNTER              OF      VALUE\n" +
      "server /server  requests_total       init        2\n" +
      "server /server  fds                             95\n" +
      "server /server  fds_max                        100\n" +
      "server /server  refusals_total       access      3\n" +
      "server /server  loop_stall_worst_ms           2500\n",
  );
});

Deno.test("health takes in what programs count", () => {
  const inspection = {
    schemaVersion: 1,
    source: { kind: "shadow", socket: "/one", pid: 8 },
    session: { id: "1", ageMs: 5, server: { pid: 7, alive: true } },
    channels: [],
    findings: [],
    programs: told,
  } as const;
  const { status, findings } = healthOf(inspection);
  assert.equal(status, "degraded");
  assert.deepEqual(findings.map(({ severity, check, text }) => `${severity} ${check}: ${text}`), [
    "degraded shadow: the shadow /one lags by 4 changes",
    "degraded fds: the server /server has 95 of 100 fds open",
    "note refusals: the server /server refused 3 (access) since it began",
    "note stalls: the server /server once answered nobody for 2 s",
  ]);
});
