/** The inspector beside real C++ processes: it shows what they do, and they do not notice. */

import assert from "node:assert/strict";
import { askServer, askShadow } from "../../inspect/asking.ts";
import { fdsOf } from "../../inspect/fds.ts";
import { healthOf } from "../../inspect/health.ts";
import { inspect } from "../../inspect/inspect.ts";
import { look, lookAtAll } from "../../inspect/sight.ts";
import type { Channel, Inspection } from "../../inspect/model.ts";
import { deadlineIn } from "../../inspect/link.ts";
import { programsOf } from "../../inspect/programs.ts";
import { ChannelObserver } from "../../inspect/observer.ts";
import { Watcher } from "../../inspect/watch.ts";
import { startClient, startShadow, until } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { cppFolder, mayRun, uniqueSocket } from "../program.ts";
import { startCppPair } from "./deployment.ts";

/** Needs the C++ binaries (SUBSPACE_CPP_BIN), --allow-run, --allow-read and --allow-write. */
const ignore = cppFolder === undefined || !mayRun;
const reason = ignore
  ? ` (skipped: ${mayRun ? "SUBSPACE_CPP_BIN is not set" : "needs permission to run"})`
  : "";

const channelOf = ({ channels }: Inspection, name: string): Channel | undefined =>
  channels.find((channel) => channel.name === name);

Deno.test({
  name: "the inspector shows C++ processes while they work, through their shadow and their server" +
    reason,
  ignore,
  fn: () =>
    withBalancedFds(async () => {
      await using programs = new AsyncDisposableStack();
      const { socket, shadowSocket, server, shadow, keep } = await startCppPair(programs);
      const where = [`--socket=${socket}`, "--channel=/demo"];
      const reader = keep(startClient("cpp", "sub", [...where, "--reliable"]));
      const writer = keep(
        startClient("cpp", "pub", [
          ...where,
          "--reliable",
          "--num_slots=16",
          "--frequency=200",
          "--num_msgs=1000000",
        ]),
      );
      await reader.line(/^Message 20:/);

      const seen = await inspect(shadowSocket);
      assert.deepEqual(seen.source, { kind: "shadow", socket: shadowSocket, pid: shadow.pid });
      assert.deepEqual(seen.session?.server, { pid: server.pid, alive: true });
      assert.deepEqual(seen.findings, []);
      const demo = channelOf(seen, "/demo")!;
      assert.deepEqual([demo.numSlots, demo.slotBytes, demo.buffers?.length], [16, 256, 1]);
      assert.deepEqual(demo.publishers.map(({ process, reliable }) => [process?.pid, reliable]), [[
        writer.pid,
        true,
      ]]);
      assert.deepEqual(demo.subscribers.map(({ process, reliable }) => [process?.pid, reliable]), [[
        reader.pid,
        true,
      ]]);
      assert(demo.traffic!.messages >= 20 && demo.slots!.newestOrdinal >= 20);
      const { free, owned, held, published, retired } = demo.slots!;
      assert.equal(free + owned + held + published + retired, 16);
      assert.equal(channelOf(seen, "/subspace/ChannelDirectory")?.type, "subspace.ChannelDirectory");

      const told = await inspect(socket);
      assert.deepEqual(told.source, { kind: "server", socket, pid: server.pid });
      assert.equal(told.session?.id, seen.session?.id);
      assert.deepEqual(
        told.channels.map((
          { name, id, numPublishers, numSubscribers },
        ) => [name, id, numPublishers, numSubscribers]),
        seen.channels.map((
          { name, id, numPublishers, numSubscribers },
        ) => [name, id, numPublishers, numSubscribers]),
      );
      assert(channelOf(told, "/demo")!.traffic!.messages >= demo.traffic!.messages);

      // Neither tells of itself, and a server's question does a shadow no harm.
      const asked = await programsOf([shadowSocket, socket], { serverSocket: shadowSocket });
      assert.deepEqual([asked.server, asked.shadows.map(({ kind }) => kind)], [null, ["reference"]]);
      assert.equal(await askServer(socket, deadlineIn(30_000)), null);
      await assert.rejects(askServer(shadowSocket, deadlineIn(30_000)));
      assert.equal(await askShadow(shadowSocket, deadlineIn(30_000)), null);

      // They go on as if nothing had happened, and the shadow has forgotten nothing.
      const after = channelOf(told, "/demo")!.traffic!.messages;
      await until("more messages", async () =>
        channelOf(await inspect(shadowSocket), "/demo")!.traffic!.messages > after + 20);
      assert(
        !shadow.lines.some((line) =>
          /remove/.test(line)
        ),
        shadow.lines.join("\n"),
      );

      await watchAndFollow(shadowSocket, socket);
      await server.kill();
      using orphaned = await look(shadowSocket);
      assert(orphaned.kind === "shadow");
      using observer = new ChannelObserver(orphaned, orphaned.dump.channels.get("/demo")!);
      await until("messages without a server", () => observer.poll(true).length > 0);
      const dead = await inspect(shadowSocket);
      assert.deepEqual(dead.session?.server, { pid: server.pid, alive: false });
      assert.deepEqual(dead.findings.map(({ text }) => text), [
        `the server is down: its process (${server.pid}) is gone`,
      ]);
      assert(channelOf(dead, "/demo")!.traffic!.messages > after);
    }),
});

/** Messages and rates of C++ publishers are seen, and nobody has become a subscriber for that. */
async function watchAndFollow(shadowSocket: string, serverSocket: string): Promise<void> {
  using sight = await lookAtAll(shadowSocket);
  assert(sight.kind === "shadow");
  using observer = new ChannelObserver(sight, sight.dump.channels.get("/demo")!);
  const payloads: number[] = [];
  await until("messages to follow", () => {
    payloads.push(...observer.poll(true).map(({ payload }) => payload!.length));
    return payloads.length >= 10;
  });
  assert(payloads.every((length) => length > 0));
  assert.equal(fdsOf(sight.dump, sight.source).fds.filter(({ kind }) => kind === "unreadable").length, 0);
  for (const socket of [shadowSocket, serverSocket]) {
    using watcher = new Watcher(socket, 5000);
    await watcher.sample();
    await until("a rate", async () => {
      const demo = (await watcher.sample()).channels.find(({ name }) => name === "/demo")!;
      assert.deepEqual([demo.numPublishers, demo.numSubscribers], [1, 1]);
      return demo.messagesPerSecond! > 0;
    });
    assert.equal(healthOf(await inspect(socket)).status, "ok");
  }
}

Deno.test({
  name: "an empty C++ shadow has no session, and our inspector does not give it one" + reason,
  ignore,
  fn: async () => {
    const socket = uniqueSocket("shadow");
    await using _shadow = await startShadow("cpp", socket);
    for (let i = 0; i < 3; i++) assert.deepEqual((await inspect(socket)).session, null);
  },
});
