/** The reference's own client programs run unchanged against our server. */

import assert from "node:assert/strict";
import { channelInfo, removeBuffers, sessionsOf, startServer, until } from "../deployment.ts";
import { cppFolder, mayRun, Program, uniqueSocket } from "../program.ts";

const ignore = !mayRun || cppFolder === undefined;
const reason = ignore ? " (skipped: SUBSPACE_CPP_BIN is not set)" : "";

async function withServer(
  run: (socket: string, start: (name: string, args: string[]) => Program) => Promise<void>,
) {
  const socket = uniqueSocket("server");
  await using programs = new AsyncDisposableStack();
  const server = programs.use(await startServer("ours", socket));
  programs.defer(() => removeBuffers(sessionsOf([server])));
  await run(
    socket,
    (name, args) => programs.use(Program.start(`${cppFolder}/${name}`, [`--socket=${socket}`, ...args])),
  );
  assert.equal((await server.kill("SIGTERM")).code, 0);
}

for (const reliable of [true, false]) {
  const kind = reliable ? "reliable" : "unreliable";
  Deno.test({
    name: `pub and sub exchange ${kind} messages through our server${reason}`,
    ignore,
    fn: () =>
      withServer(async (socket, start) => {
        const args = reliable ? ["--reliable"] : [];
        const sub = start("sub", args);
        await until(
          "the subscriber is there",
          async () => (await channelInfo(socket, "test"))?.numSubs === 1,
        );
        const pub = start("pub", [...args, "--num_msgs=100", "--frequency=1000", "--num_slots=16"]);
        await pub.line(/All messages sent/);
        await sub.until(
          "all messages",
          (lines) => lines.filter((line) => /^Message \d+: hello/.test(line)).length >= 100,
        );
      }),
  });
}

Deno.test({
  name: `perf_subspace_pub and perf_subspace_sub stream through our server${reason}`,
  ignore,
  fn: () =>
    withServer(async (socket, start) => {
      const sub = start("perf_subspace_sub", ["--num_msgs=20000", "--reliable"]);
      await until("the subscriber is there", async () => (await channelInfo(socket, "test"))?.numSubs === 1);
      const pub = start("perf_subspace_pub", ["--num_msgs=20000"]);
      assert.equal((await pub.status()).code, 0, pub.lines.join("\n"));
      await sub.line(/20000 messages received/);
    }),
});
