/**
 * What C++ publishers publish is recorded, and replayed to C++ subscribers, who also read what the inspector publishes;
 * all of it through C++ servers and shadows.
 */

import assert from "node:assert/strict";
import { inspect } from "../../inspect/inspect.ts";
import { RecordingReader } from "../../inspect/recording.ts";
import { sessionsOf, startClient, startServer, until } from "../deployment.ts";
import { cppFolder, mayRun, Program, uniqueSocket } from "../program.ts";
import { removeTraces } from "../traces.ts";
import { startCppPair } from "./deployment.ts";
import { checkPeerMessage, havePeers } from "./peer_messages.ts";

const ignore = !mayRun || !havePeers;
const reason = ignore
  ? ` (skipped: ${mayRun ? "SUBSPACE_CPP_BIN names no folder with peer_pub" : "needs permission to run"})`
  : "";

const MESSAGES = 40;

Deno.test({
  name: "what C++ publishes is recorded whole, through shadow and server, and replayed to a C++ subscriber" +
    reason,
  ignore,
  async fn() {
    await using programs = new AsyncDisposableStack();
    const { socket, shadowSocket, keep } = await startCppPair(programs);
    const peer = (name: string, ...args: string[]) =>
      keep(Program.start(`${cppFolder}/${name}`, [`--socket=${socket}`, "--channel=/said", ...args]));
    const sizes = "--sizes=16,64,200",
      shape = ["--slots=64", "--checksum_size=20", "--metadata=16", "--type=robot.Said"];
    const publisher = peer("peer_pub", "--count=1000000", "--rate_us=1000", sizes, ...shape);
    await until(
      "/said is there",
      async () =>
        (await inspect(shadowSocket)).channels.some(({ name, traffic }) =>
          name === "/said" && traffic!.messages > 0
        ),
    );

    const files: string[] = [];
    programs.defer(async () => {
      for (const file of files) await Deno.remove(file);
    });
    for (const from of [shadowSocket, socket]) {
      const file = await Deno.makeTempFile();
      files.push(file);
      const recorder = keep(
        Program.deno(
          "cli/inspect.ts",
          ["record", "/said", file, `--socket=${from}`, `--count=${MESSAGES}`],
          ["--allow-ffi", `--allow-write=${file}`],
        ),
      );
      assert.equal((await recorder.status()).code, 0, recorder.lines.join("\n"));
    }
    await publisher.kill();

    for (const file of files) {
      const numbers = await numbersIn(file);
      assert.equal(numbers.length, MESSAGES);
      const lost = numbers.at(-1)! - numbers[0] + 1 - MESSAGES;
      const subscriber = peer("peer_sub", `--count=${MESSAGES}`, "--metadata", "--type=robot.Said");
      await subscriber.line(/^ready/);
      const replayer = keep(
        Program.deno(
          "cli/inspect.ts",
          ["replay", file, `--server=${socket}`, "--speed=max"],
          ["--allow-ffi", `--allow-read=${file}`],
        ),
      );
      await replayer.line(new RegExp(`^Replayed ${MESSAGES} messages of 1 channel$`));
      await subscriber.line(new RegExp(`^received ${MESSAGES} lost ${lost} torn 0 dup 0 `));
      assert.equal((await subscriber.status()).code, 0);
    }
  },
});

Deno.test({
  name: "what the inspector publishes a C++ subscriber reads" + reason,
  ignore,
  async fn() {
    const socket = uniqueSocket("server");
    await using server = await startServer("cpp", socket);
    await using reader = startClient("cpp", "sub", [`--socket=${socket}`, "--channel=/said"]);
    await until(
      "the reader is there",
      async () =>
        (await inspect(socket)).channels.some(({ name, numSubscribers }) =>
          name === "/said" && numSubscribers > 0
        ),
    );
    await using publisher = Program.deno("cli/inspect.ts", ["publish", "/said", `--server=${socket}`]);
    await publisher.write("one\n\ntwo\n");
    await publisher.closeStdin();
    assert.equal((await publisher.status()).code, 0);
    assert.deepEqual(publisher.lines, ["Published 2 messages, 6 B"]);
    await reader.line(/^Message 2: two$/);
    assert.deepEqual(reader.lines.filter((line) => /^Message/.test(line)), [
      "Message 1: one",
      "Message 2: two",
    ]);
    await reader.kill();
    await server.kill();
    sessionsOf([server]).forEach((session) => removeTraces(BigInt(session)));
  },
});

/** The numbers of the messages in a recording, each of them as its publisher filled it. */
async function numbersIn(file: string): Promise<number[]> {
  using opened = await Deno.open(file);
  const reader = new RecordingReader(opened, (await Deno.stat(file)).size);
  const numbers: number[] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) {
    if (record.kind !== "message" || record.message.activation) continue;
    const number = checkPeerMessage(record.message.payload);
    assert.deepEqual([...record.message.metadata], Array(16).fill(number & 255));
    numbers.push(number);
  }
  assert.equal(reader.problem, null);
  return numbers;
}
