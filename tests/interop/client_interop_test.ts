/** Our client against the C++ server, and against C++ publishers and subscribers. */

import assert from "node:assert/strict";
import type { Publisher, Subscriber } from "../../mod.ts";
import { cases, eventually, readAll } from "../client/cases.ts";
import { withBalancedFds } from "../open_fds.ts";
import { cppFolder, mayRun } from "../program.ts";
import { Deployment } from "./deployment.ts";
import { checkPeerMessage, fillPeerMessage } from "./peer_messages.ts";

const ignore = !mayRun || cppFolder === undefined;
const reason = ignore
  ? ` (skipped: ${mayRun ? "SUBSPACE_CPP_BIN is not set" : "needs permission to run"})`
  : "";

function test(name: string, shadow: boolean, run: (deployment: Deployment) => Promise<void>): void {
  const fn = () =>
    withBalancedFds(async () => {
      await using deployment = await Deployment.start({ shadow });
      await run(deployment);
    });
  Deno.test({ name: name + reason, ignore, fn });
}

for (const [name, run] of Object.entries(cases)) {
  test(`C++ server: ${name}`, false, async (deployment) => {
    await run(await deployment.connect(), () => deployment.connect());
  });
}

async function sendPeerMessages(
  publisher: Publisher,
  count: number,
  sizes: readonly number[],
): Promise<void> {
  for (let sequence = 0; sequence < count; sequence++) {
    const size = sizes[sequence % sizes.length];
    let buffer = publisher.getBuffer(size);
    while (buffer === null) {
      await publisher.wait();
      buffer = publisher.getBuffer(size);
    }
    fillPeerMessage(buffer, size, sequence);
    assert(publisher.publish(size));
  }
}

/** Reads until so many messages came, in order and with none missing. */
async function receivePeerMessages(subscriber: Subscriber, count: number): Promise<void> {
  let next = 0;
  for await (const message of subscriber) {
    assert.equal(checkPeerMessage(message.data), next++);
    if (next === count) return;
  }
}

const SIZES = [16, 64, 100, 1000, 4096, 70000];

test(
  "our reliable publisher, C++ subscribers: nothing is lost or torn, slots grow",
  false,
  async (deployment) => {
    const client = await deployment.connect();
    const args = ["--channel=/x", "--reliable", "--count=3000"];
    const peers = [deployment.peer("peer_sub", ...args), deployment.peer("peer_sub", ...args)];
    for (const peer of peers) await peer.line(/^ready$/);
    const publisher = await client.createPublisher("/x", { slotBytes: 64, numSlots: 16, reliable: true });
    await sendPeerMessages(publisher, 3000, SIZES);
    for (const peer of peers) await peer.line(/^received 3000 lost 0 torn 0 dup 0 /);
  },
);

test(
  "a C++ reliable publisher, our subscribers: nothing is lost or torn, slots grow",
  false,
  async (deployment) => {
    const client = await deployment.connect();
    const subscriber = await client.createSubscriber("/x", { reliable: true });
    const peer = deployment.peer(
      "peer_pub",
      "--channel=/x",
      "--reliable",
      "--count=3000",
      "--wait_subs=1",
      "--slots=16",
      "--slot_size=64",
      `--sizes=${SIZES}`,
      "--linger",
    );
    await receivePeerMessages(subscriber, 3000);
    await peer.line(/^published 3000$/);
  },
);

test("our unreliable publisher, a C++ subscriber: what arrives is whole", false, async (deployment) => {
  const client = await deployment.connect();
  const publisher = await client.createPublisher("/u", { slotBytes: 64, numSlots: 64 });
  const peer = deployment.peer("peer_sub", "--channel=/u", "--count=2000");
  await peer.line(/^ready$/);
  let sequence = 0;
  while (!peer.lines.some((line) => line.startsWith("received"))) {
    const size = SIZES[sequence % SIZES.length];
    fillPeerMessage(publisher.getBuffer(size)!, size, sequence++);
    publisher.publish(size);
    if (sequence % 16 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await peer.line(/^received 2000 lost \d+ torn 0 dup 0 /);
});

test("a C++ unreliable publisher, our subscriber: what arrives is whole", false, async (deployment) => {
  const client = await deployment.connect();
  const subscriber = await client.createSubscriber("/u");
  const args = [
    "--channel=/u",
    "--count=5000",
    "--slots=64",
    "--wait_subs=1",
    `--sizes=${SIZES}`,
    "--rate_us=20",
  ];
  deployment.peer("peer_pub", ...args, "--linger");
  let [last, received] = [-1, 0];
  for await (const message of subscriber) {
    const sequence = checkPeerMessage(message.data);
    assert(sequence > last, `${sequence} after ${last}`);
    last = sequence;
    received++;
    if (last === 4999) break;
  }
  assert.equal(received + subscriber.drops, 5000);
});

test("without ever yielding, a publisher learns of a subscriber and wakes it", false, async (deployment) => {
  const client = await deployment.connect();
  const publisher = await client.createPublisher("/sync", { slotBytes: 64, numSlots: 16, reliable: true });
  const peer = deployment.peer("peer_sub", "--channel=/sync", "--reliable", "--count=1000");
  // The reference's subscriber sleeps in poll: without its trigger, a publisher whose slots are full would wait for
  // ever. Nothing below yields to the event loop.
  for (let sequence = 0; sequence < 1000; sequence++) {
    let buffer = publisher.getBuffer(64);
    while (buffer === null) {
      assert(publisher.waitSync({ timeoutMs: 30_000 }), "no slot became free");
      buffer = publisher.getBuffer(64);
    }
    fillPeerMessage(buffer, 64, sequence);
    publisher.publish(64);
  }
  await peer.line(/^received 1000 lost 0 torn 0 dup 0 /);
});

test("without ever yielding, a placeholder becomes a channel", false, async (deployment) => {
  const client = await deployment.connect();
  const subscriber = await client.createSubscriber("/sync", { reliable: true });
  deployment.peer("peer_pub", "--channel=/sync", "--reliable", "--count=500", "--wait_subs=1", "--linger");
  for (let next = 0; next < 500; next++) {
    assert(subscriber.waitSync({ timeoutMs: 30_000 }), `message ${next} did not come`);
    using message = subscriber.read()!;
    assert.equal(checkPeerMessage(message.data), next);
  }
});

/** Reliable traffic between two clients, checked message by message, until it is stopped. */
async function startTraffic(deployment: Deployment) {
  const [sender, receiver] = [await deployment.connect(), await deployment.connect()];
  const subscriber = await receiver.createSubscriber("/traffic", { reliable: true });
  const publisher = await sender.createPublisher("/traffic", {
    slotBytes: 256,
    numSlots: 16,
    reliable: true,
  });
  const traffic = { received: 0, clients: [sender, receiver], stop: async () => {} };
  let stopped = false;
  const sending = (async () => {
    const message = new Uint8Array(200);
    for (let sequence = 0; !stopped; sequence++) {
      fillPeerMessage(message, message.length, sequence);
      await publisher.send(message);
    }
  })();
  const receiving = (async () => {
    for await (const message of subscriber) {
      const sequence = checkPeerMessage(message.data);
      if (sequence !== traffic.received++) {
        throw new Error(`lost: ${sequence} came, after ${deployment.history}`);
      }
    }
  })();
  traffic.stop = async () => {
    stopped = true;
    await sending;
    const sent = publisher.ordinal - 1; // The first ordinal is the activation's.
    await eventually("everything has arrived", () => traffic.received === sent);
    await subscriber.close();
    await receiving;
  };
  return traffic;
}

test(
  "the C++ server is killed and recovers from its shadow: traffic goes on, nothing is lost",
  true,
  async (deployment) => {
    const traffic = await startTraffic(deployment);
    for (let round = 1; round <= 5; round++) {
      const progress = traffic.received;
      await eventually("traffic", () => traffic.received > progress + 500);
      await deployment.killServer();
      await eventually("the clients notice", () => traffic.clients.every((client) => !client.connected));
      const dead = traffic.received;
      await eventually("traffic without a server", () => traffic.received > dead + 500);
      await deployment.startServer();
      await eventually("the clients are back", () => traffic.clients.every((client) => client.connected));
      assert(traffic.clients.every((client) => client.reattachments === round));
      const [info] = await traffic.clients[0].channelInfo("/traffic");
      assert.equal(info.participants.length, 2, "the server knows both again");
    }
    await traffic.stop();
    for (const change of deployment.changes) {
      if (change.state === "attached") assert.deepEqual([change.recreated, change.failed], [[], []]);
    }
  },
);

test(
  "the C++ server is stopped: whoever is there goes on, and what changed is learnt later",
  false,
  async (deployment) => {
    const traffic = await startTraffic(deployment);
    const client = await deployment.connect();
    await eventually("traffic", () => traffic.received > 100);
    deployment.signalServer("SIGSTOP");
    const asked = client.createSubscriber("/traffic");
    const progress = traffic.received;
    await eventually("traffic without a server", () => traffic.received > progress + 1000);
    deployment.signalServer("SIGCONT");
    const subscriber = await asked;
    assert(await subscriber.wait());
    await traffic.stop();
    assert(traffic.clients.every((client) => client.reattachments === 0));
  },
);

test("what is asked while the server is away is answered when it is back", true, async (deployment) => {
  const client = await deployment.connect();
  const publisher = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
  await deployment.killServer();
  await eventually("the client notices", () => !client.connected);
  const subscribing = client.createSubscriber("/a");
  const info = client.channelInfo("/a");
  publisher.publish(new Uint8Array([1]));
  await deployment.startServer();
  const subscriber = await subscribing;
  assert.equal((await info)[0].numPublishers, 1);
  publisher.publish(new Uint8Array([2]));
  assert(await subscriber.wait());
  assert.equal(readAll(subscriber).length, 2, "both messages are there");
});

test(
  "a server without a shadow forgets: channels start anew, and the user is told",
  false,
  async (deployment) => {
    const client = await deployment.connect();
    const publisher = await client.createPublisher("/a", { slotBytes: 64, numSlots: 8 });
    const subscriber = await client.createSubscriber("/a", { maxActiveMessages: 2 });
    const placeholder = await client.createSubscriber("/later");
    publisher.publish(new TextEncoder().encode("held"));
    using held = subscriber.read()!;
    await deployment.killServer();
    await eventually("the client notices", () => !client.connected);
    publisher.publish(new TextEncoder().encode("lost"));
    publisher.getBuffer();
    await deployment.startServer();
    await eventually("the client is back", () => client.connected);
    const change = deployment.changes.at(-1)!;
    assert(change.state === "attached");
    assert.deepEqual([[...change.recreated].sort(), change.failed], [["/a", "/later"], []]);
    assert.equal(publisher.publish(3), false, "that buffer is gone");
    assert.equal(new TextDecoder().decode(held.data), "held");
    publisher.publish(new TextEncoder().encode("anew"));
    assert.deepEqual(readAll(subscriber), ["anew"]);
    const other = await deployment.connect();
    const later = await other.createPublisher("/later", { slotBytes: 64, numSlots: 4 });
    later.publish(new TextEncoder().encode("x"));
    assert(await placeholder.wait());
    assert.deepEqual(readAll(placeholder), ["x"]);
    held.release();
    assert.equal(held.data.length, 0);
  },
);

test("without ever yielding, a client finds the server again", true, async (deployment) => {
  const client = await deployment.connect();
  const subscriber = await client.createSubscriber("/sync");
  const publisher = await client.createPublisher("/sync", { slotBytes: 64, numSlots: 8 });
  for (const rounds of [1, 2]) {
    deployment.restartServerMeanwhile();
    const deadline = Date.now() + 30_000;
    while (client.reattachments < rounds && Date.now() < deadline) {
      if (rounds === 2) subscriber.waitSync({ timeoutMs: 1 });
      else publisher.publish(new Uint8Array([1]));
      subscriber.read()?.release();
    }
    assert.equal(client.reattachments, rounds);
  }
});
