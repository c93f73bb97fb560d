/** Virtual channels and subscriber queues between our client, the C++ server, and C++ publishers and subscribers. */

import assert from "node:assert/strict";
import { channelCases } from "../client/channel_cases.ts";
import { channelInfo, type Maker, until } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { mayRun } from "../program.ts";
import { Deployment } from "./deployment.ts";
import { checkPeerMessage, fillPeerMessage, havePeers } from "./peer_messages.ts";

const ignore = !mayRun || !havePeers;
const reason = ignore
  ? ` (skipped: ${mayRun ? "SUBSPACE_CPP_BIN names no folder with peer_pub" : "needs permission to run"})`
  : "";

function test(name: string, maker: Maker, run: (deployment: Deployment) => Promise<void>): void {
  const fn = () =>
    withBalancedFds(async () => {
      await using deployment = await Deployment.start({ maker });
      await run(deployment);
    });
  Deno.test({ name: name + reason, ignore, fn });
}

for (const [name, run] of Object.entries(channelCases)) {
  test(`C++ server: ${name}`, "cpp", async (deployment) => {
    await run(await deployment.connect(), () => deployment.connect());
  });
}

const SIZES = [16, 64, 100, 1000, 4096, 70000];
const MAKERS: readonly Maker[] = ["cpp", "ours"];

for (const maker of MAKERS) {
  const server = maker === "cpp" ? "C++ server" : "our server";

  test(
    `${server}: our reliable virtual channels reach C++ subscribers, of one and of all`,
    maker,
    async (deployment) => {
      const client = await deployment.connect();
      const shape = { slotBytes: 64, numSlots: 16, mux: "/mux", reliable: true };
      const publisher = await client.createPublisher("/v", { ...shape, vchanId: 5 });
      const own = deployment.peer("peer_sub", "--channel=/v", "--mux=/mux", "--reliable", "--count=2000");
      await own.line(/^ready$/);
      const all = deployment.peer("peer_sub", "--channel=/mux", "--reliable", "--count=2000");
      await all.line(/^ready$/);
      for (let sequence = 0; sequence < 2000; sequence++) {
        const size = SIZES[sequence % SIZES.length], message = new Uint8Array(size);
        fillPeerMessage(message, size, sequence);
        await publisher.send(message);
      }
      for (const peer of [own, all]) await peer.line(/^received 2000 lost 0 torn 0 dup 0 /);
    },
  );

  test(
    `${server}: C++ reliable virtual channels reach our subscribers, of one and of all`,
    maker,
    async (deployment) => {
      const client = await deployment.connect();
      const peer = deployment.peer(
        "peer_pub",
        ...["--channel=/v", "--mux=/mux", "--vchan=9", "--reliable", "--slots=64", "--slot_size=64"],
        ...["--count=500", "--wait_subs=1", "--linger", `--sizes=${SIZES}`],
      );
      await until("/v is there", async () => await channelInfo(deployment.socket, "/v") !== undefined);
      const own = await client.createSubscriber("/v", { mux: "/mux", reliable: true });
      const all = await client.createSubscriber("/mux");
      let last = -1, name: string | null = null;
      const watching = (async () => {
        for await (const message of all) {
          const sequence = checkPeerMessage(message.data);
          assert(sequence > last && message.vchanId === 9);
          [last, name] = [sequence, message.channel];
        }
      })();
      let next = 0;
      for await (const message of own) {
        assert.equal(checkPeerMessage(message.data), next++);
        if (next === 500) break;
      }
      await peer.line(/^published 500$/);
      await until("the multiplexer's subscriber has read to the end", () => last === 499 && name === "/v");
      await all.close();
      await watching;
    },
  );

  test(`${server}: our publisher fills the queues of C++ subscribers`, maker, async (deployment) => {
    const client = await deployment.connect();
    const options = { slotBytes: 64, numSlots: 64, subscriberQueueArenaBytes: 64000 };
    const publisher = await client.createPublisher("/q", options);
    const peers = ["--queue=0", "--queue=64"].map((queue) =>
      deployment.peer("peer_sub", "--channel=/q", "--count=500", queue)
    );
    for (const peer of peers) await peer.line(/^ready$/);
    let sequence = 0;
    while (!peers.every((peer) => peer.lines.some((line) => line.startsWith("received")))) {
      const size = SIZES[sequence % SIZES.length];
      fillPeerMessage(publisher.getBuffer(size)!, size, sequence++);
      publisher.publish(size);
      if (sequence % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    for (const peer of peers) await peer.line(/^received 500 lost \d+ torn 0 /);
  });

  test(
    `${server}: a C++ publisher with queues reaches our subscribers, in order`,
    maker,
    async (deployment) => {
      const client = await deployment.connect();
      deployment.peer(
        "peer_pub",
        ...["--channel=/q", "--arena=64000", "--slots=64", "--count=2000", "--wait_subs=2", "--rate_us=20"],
        ...["--linger", `--sizes=${SIZES}`],
      );
      await until("/q is there", async () => await channelInfo(deployment.socket, "/q") !== undefined);
      const subscribers = [
        await client.createSubscriber("/q", { queueSize: 4 }),
        await client.createSubscriber("/q"),
      ];
      await Promise.all(subscribers.map(async (subscriber) => {
        let first = -1, last = -1, received = 0;
        for await (const message of subscriber) {
          const sequence = checkPeerMessage(message.data);
          assert(sequence > last, `${sequence} after ${last}`);
          if (first === -1) first = sequence;
          [last, received] = [sequence, received + 1];
          if (last === 1999) break;
        }
        // Of those before its first message, what it had no place for is counted, and what was overwritten is not.
        const all = received + subscriber.drops;
        assert(all >= 2000 - first && all <= 2000, `${all} of 2000, the first of which was ${first}`);
      }));
    },
  );
}
