/**
 * The main job with every mix of makers: server, shadow and clients, each the C++ one or ours.
 *
 * Reliable traffic goes on while the server is killed and comes back; not one message may be missing.
 */

import assert from "node:assert/strict";
import {
  channelInfo,
  type Maker,
  removeBuffers,
  sessionsOf,
  startClient,
  startServer,
  startShadow,
  until,
} from "../deployment.ts";
import { cppFolder, mayRun, type Program, uniqueSocket } from "../program.ts";

const MESSAGES = 1200;
const FREQUENCY_HZ = 500;

/** The ordinals of the messages that a subscriber printed. */
function ordinals({ lines }: Program): number[] {
  return lines.flatMap((line) => {
    const match = line.match(/^Message (\d+): (.*)$/);
    if (match === null) return [];
    assert.equal(match[2], "hello", "a message is torn");
    return [Number(match[1])];
  });
}

async function killAndRecover(
  makers: { server: Maker; shadow: Maker; pub: Maker; sub: Maker },
): Promise<void> {
  const socket = uniqueSocket("server");
  const shadowSocket = uniqueSocket("shadow");
  const channel = "interop/telemetry";
  await using programs = new AsyncDisposableStack();
  const all: Program[] = [];
  const keep = (program: Program) => {
    all.push(program);
    return programs.use(program);
  };
  programs.defer(() => removeBuffers(sessionsOf(all)));

  const shadow = keep(await startShadow(makers.shadow, shadowSocket));
  const server = keep(await startServer(makers.server, socket, [shadowSocket]));
  const where = [`--socket=${socket}`, `--channel=${channel}`];
  const subscriber = keep(startClient(makers.sub, "sub", [...where, "--reliable"]));
  await until("the subscriber is there", async () => (await channelInfo(socket, channel))?.numSubs === 1);
  const publisher = keep(
    startClient(makers.pub, "pub", [
      ...where,
      "--reliable",
      `--num_msgs=${MESSAGES}`,
      `--frequency=${FREQUENCY_HZ}`,
      "--num_slots=64",
    ]),
  );
  const received = (count: number) =>
    subscriber.until(`${count} messages`, () => ordinals(subscriber).length >= count);
  await received(100);
  const before = await channelInfo(socket, channel);

  await server.kill();
  const atKill = ordinals(subscriber).length;
  await received(atKill + 100);

  const successor = keep(await startServer(makers.server, socket, [shadowSocket]));
  await successor.line(/Recovered 3 channels from primary shadow \(session_id=\d+\)/);
  const after = await channelInfo(socket, channel);
  assert.deepEqual(
    [after?.channelId, after?.numPubs, after?.numSubs, after?.numSlots, after?.slotSize],
    [before?.channelId, before?.numPubs, before?.numSubs, before?.numSlots, before?.slotSize],
  );

  // A newcomer changes the topology, upon which the C++ client re-attaches too.
  const newcomer = keep(startClient(makers.sub, "sub", where));
  await newcomer.until("messages at a newcomer", () => ordinals(newcomer).length >= 50);
  await until("the publisher is attached again", async () => {
    const info = await channelInfo(socket, channel);
    return info?.participants.some(({ isPublisher, pid }) => isPublisher && pid === BigInt(publisher.pid)) ??
      false;
  });

  await publisher.line(/All messages sent/);
  await received(MESSAGES);
  const all1 = ordinals(subscriber);
  assert.deepEqual(
    all1,
    Array.from({ length: MESSAGES }, (_, i) => all1[0] + i),
    "order, and nothing missing",
  );
  assert(!shadow.lines.some((line) => line.includes("unknown")), shadow.lines.join("\n"));
}

const makers: Maker[] = ["cpp", "ours"];
const reason = !mayRun
  ? " (skipped: needs permission to run programs)"
  : " (skipped: SUBSPACE_CPP_BIN is not set)";

for (const server of makers) {
  for (const shadow of makers) {
    for (const clients of makers) {
      const ours = [server, shadow, clients].every((maker) => maker === "ours");
      const ignore = !mayRun || (!ours && cppFolder === undefined);
      Deno.test({
        name: `${server} server, ${shadow} shadow, ${clients} clients: a killed server is not noticed` +
          (ignore ? reason : ""),
        ignore,
        fn: () => killAndRecover({ server, shadow, pub: clients, sub: clients }),
      });
    }
  }
}

for (const [pub, sub] of [["cpp", "ours"], ["ours", "cpp"]] satisfies [Maker, Maker][]) {
  const ignore = !mayRun || cppFolder === undefined;
  Deno.test({
    name: `a ${pub} publisher and a ${sub} subscriber do not notice a killed server` + (ignore ? reason : ""),
    ignore,
    fn: () => killAndRecover({ server: "ours", shadow: "ours", pub, sub }),
  });
}
