/** What the server publishes of itself, and what it tells a shadow at its start. */

import { fromBinary } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { systemHost } from "../../server/host.ts";
import { Server } from "../../server/server.ts";
import type { Timers } from "../../ffi/system.ts";
import { ChannelDirectorySchema, StatisticsSchema } from "../../proto/subspace_pb.ts";
import { ReadingEnd } from "../../shm/reading.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { until } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import type { RawClient } from "./raw_client.ts";
import { channelOf, recordEvents, test } from "./running_server.ts";

/** Timers that a test lets run out. */
class ManualTimers implements Timers {
  readonly pending: { ms: number; callback: () => void }[] = [];

  after(ms: number, callback: () => void): () => void {
    const timer = { ms, callback };
    this.pending.push(timer);
    return () => void this.pending.splice(this.pending.indexOf(timer) >>> 0, 1);
  }

  /** Lets the first timer of a length run out. */
  fire(matches: (ms: number) => boolean): void {
    const index = this.pending.findIndex(({ ms }) => matches(ms));
    this.pending.splice(index, 1)[0].callback();
  }
}

/** Subscribes to a channel of the server, and returns what reads the newest message. */
async function reader(server: Server, client: RawClient, name: string) {
  const { subscriberId } = await client.createSubscriber(name);
  const { physical } = channelOf(server, name);
  const end = new ReadingEnd({
    sessionId: server.sessionId,
    resolvedName: name,
    blocks: physical.blocks,
    id: subscriberId,
  });
  return {
    newest(): Uint8Array | null {
      if (!end.readNewest()) return null;
      const message = end.payload.slice();
      end.release(end.slotId);
      return message;
    },
    [Symbol.dispose]: () => end[Symbol.dispose](),
  };
}

/** Directories wait for milliseconds; statistics and orphans for the lengths that a test gives them. */
const STATISTICS_MS = 1e6, ORPHANS_MS = 2e6;
const isDirectory = (ms: number) => ms < STATISTICS_MS;
const isStatistics = (ms: number) => ms === STATISTICS_MS;

const timers = new ManualTimers();
test("the directory is published once after any number of changes", async ({ server, connect }) => {
  timers.fire(isDirectory);
  const client = await connect("somebody");
  using directory = await reader(server, client, "/subspace/ChannelDirectory");
  for (let i = 0; i < 10; i++) await client.createPublisher(`/c${i}`, { numSlots: 16 });
  assert.equal(timers.pending.filter(({ ms }) => isDirectory(ms)).length, 1);
  timers.fire(isDirectory);
  const { serverId, channels } = fromBinary(ChannelDirectorySchema, directory.newest()!);
  assert.match(serverId, new RegExp(`^local\\..*\\.${Deno.pid}\\.\\d+$`));
  assert.deepEqual(channels.map(({ name, channelId }) => [name, channelId]).slice(0, 3), [
    ["/subspace/ChannelDirectory", 0],
    ["/subspace/Statistics", 1],
    ["/c0", 2],
  ]);
  assert.deepEqual(
    channels[0].participants.map(({ id, pid, programName, isPublisher }) => ({
      id,
      pid,
      programName,
      isPublisher,
    })),
    [
      { id: 0, pid: BigInt(Deno.pid), programName: "", isPublisher: true },
      { id: 1, pid: BigInt(Deno.pid), programName: "somebody", isPublisher: false },
    ],
  );
  assert.equal(timers.pending.some(({ ms }) => isDirectory(ms)), false, "nothing has changed since");
  assert.equal(channels[0].slotSize, 1024);
  const { channels: [info] } = await client.getChannelInfo("/subspace/ChannelDirectory");
  assert(info.slotSize >= 1024);
}, { timers, local: true, statisticsPeriodMs: STATISTICS_MS, orphanCheckMs: ORPHANS_MS });

const grown = new ManualTimers();
test("the directory grows with what it says", async ({ server, connect }) => {
  const client = await connect();
  for (let i = 0; i < 200; i++) await client.createPublisher(`/a/rather/long/name/${i}`, { numSlots: 16 });
  using directory = await reader(server, client, "/subspace/ChannelDirectory");
  while (grown.pending.some(({ ms }) => isDirectory(ms))) grown.fire(isDirectory);
  assert.equal(fromBinary(ChannelDirectorySchema, directory.newest()!).channels.length, 202);
}, { timers: grown, statisticsPeriodMs: STATISTICS_MS, orphanCheckMs: ORPHANS_MS });

const periods = new ManualTimers();
test("statistics are published periodically", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("/c", { numSlots: 16 });
  using statistics = await reader(server, client, "/subspace/Statistics");
  assert.equal(statistics.newest(), null);
  for (let i = 1; i <= 2; i++) {
    periods.fire(isStatistics);
    const { timestamp, channels } = fromBinary(StatisticsSchema, statistics.newest()!);
    assert(timestamp > 0n && timestamp <= systemHost.monotonicNs());
    assert.deepEqual(channels.map(({ channelName }) => channelName), [
      "/subspace/ChannelDirectory",
      "/subspace/Statistics",
      "/c",
    ]);
    assert.equal(channels[1].totalMessages, BigInt(i - 1));
  }
}, { timers: periods, statisticsPeriodMs: STATISTICS_MS, orphanCheckMs: ORPHANS_MS });

test("a server publishes nothing of itself where it is told so", ({ server }) => {
  assert.equal(server.table.size, 0);
  return Promise.resolve();
}, { publishServerChannels: false });

Deno.test("a fresh server's own channels have the ids 0 and 1, in a shadow too", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
    const shadow = Shadow.start({ socket: shadowSocket });
    const server = await Server.start({ socket, shadowSocket });
    await until("the shadow has all", () => shadow.state.channels.size === 2);
    assert.equal(shadow.state.sessionId, server.sessionId);
    for (const [id, name] of ["/subspace/ChannelDirectory", "/subspace/Statistics"].entries()) {
      await until("the publisher is there", () => shadow.state.channels.get(name)!.publishers.size === 1);
      const { info, publishers } = shadow.state.channels.get(name)!;
      assert.deepEqual([info.channelId, info.numSlots, info.slotSize, info.hasSplitBufferOptions], [
        id,
        32,
        1024,
        true,
      ]);
      assert.deepEqual([...publishers.keys()], [0]);
    }
    shadow.stop();
    await until("the shadow is gone", () => !server.keepsState);
    await server.stop();
  }));

test("a shadow is told what the reference tells it (section 3.4)", async ({ server, connect }) => {
  const client = await connect();
  const events = recordEvents(server.table);
  const told = () => events.splice(0);
  const { subscriberId } = await client.createSubscriber("/c");
  assert.deepEqual(told(), ["create_channel /c 2", "update_channel_options /c", "add_subscriber /c 0"]);
  const { publisherId } = await client.createPublisher("/c", { numSlots: 16, notifyRetirement: true });
  assert.deepEqual(told(), ["create_channel /c 2", "update_channel_options /c", "add_publisher /c 1"]);
  await client.createPublisher("/v1", { mux: "/mux", numSlots: 16 });
  assert.deepEqual(told(), [
    "create_channel /mux 3",
    "create_channel /v1 3",
    "update_channel_options /mux",
    "add_publisher /v1 0",
  ]);
  await client.removePublisher("/c", publisherId);
  assert.deepEqual(told(), ["remove_publisher /c 1"]);
  await client.removeSubscriber("/c", subscriberId);
  assert.deepEqual(told(), ["remove_subscriber /c 0", "remove_channel /c 2"]);
  await client.removePublisher("/v1", 0);
  assert.deepEqual(told(), ["remove_publisher /v1 0", "remove_channel /v1 3", "remove_channel /mux 3"]);
});
