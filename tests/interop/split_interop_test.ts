/** Split buffers with the C++ server, and with C++ publishers and subscribers. */

import assert from "node:assert/strict";
import type { Client, PublisherOptions, Subscriber } from "../../mod.ts";
import { Files, splitCases } from "../client/split_cases.ts";
import { until } from "../deployment.ts";
import { cppTest } from "./cpp_server.ts";
import { checkPeerMessage, fillPeerMessage } from "./peer_messages.ts";

for (const [name, run] of Object.entries(splitCases)) {
  cppTest(`C++ server: ${name}`, ({ client, connect }) => run(client, connect));
}

const SPLIT = { slotBytes: 256, numSlots: 16, reliable: true, splitBuffers: true } as const;
const SIZES = [64, 300, 5000, 16, 20_000];
const COUNT = 200;

async function publish(client: Client, options: Partial<PublisherOptions>, count = COUNT): Promise<void> {
  const publisher = await client.createPublisher("/f", { ...SPLIT, ...options });
  await until("it has a subscriber", () => publisher.numSubscribers > 0);
  for (let sequence = 0; sequence < count; sequence++) {
    const message = new Uint8Array(SIZES[sequence % SIZES.length]);
    fillPeerMessage(message, message.length, sequence);
    const metadata = new Uint8Array(options.metadataBytes ?? 0).fill(sequence);
    while (!publisher.publish(message, metadata)) await publisher.wait();
  }
}

async function read(subscriber: Subscriber, count = COUNT): Promise<void> {
  let next = 0;
  for await (const message of subscriber) {
    assert.equal(checkPeerMessage(message.data), next);
    if (++next === count) break;
  }
}

const SENDING = ["--reliable", `--count=${COUNT}`, `--sizes=${SIZES}`, "--wait_subs=1", "--linger"];
const READING = ["--reliable", `--count=${COUNT}`];

for (const early of [true, false]) {
  const when = early ? "that waits for it" : "that comes later";
  cppTest(`our split buffers, growing, are whole to a C++ subscriber ${when}`, async ({ client, peer }) => {
    const options = { checksum: true, metadataBytes: 20 };
    const subscriber = () => peer("peer_sub", ...READING, "--checksum", "--metadata");
    const first = early ? subscriber() : null;
    await first?.line(/^ready$/);
    const sent = publish(client, options);
    await (first ?? subscriber()).line(new RegExp(`^received ${COUNT} lost 0 torn 0 dup 0 `));
    await sent;
  });

  cppTest(
    `the split buffers of a C++ publisher, growing, are whole to us ${when}`,
    async ({ client, peer }) => {
      const publisher = () => peer("peer_pub", "--split", "--checksum", "--metadata=20", ...SENDING);
      if (!early) await publisher().line(/^created$/);
      const subscriber = await client.createSubscriber("/f", { reliable: true, checksum: true });
      if (early) publisher();
      await read(subscriber);
    },
  );

  cppTest(`memfds of our allocator are found by a C++ subscriber ${when}`, async ({ client, peer }) => {
    using files = new Files();
    const subscriber = () => peer("peer_sub", "--memfd", ...READING);
    const first = early ? subscriber() : null;
    await first?.line(/^ready$/);
    const sent = publish(client, { splitBuffers: files });
    await (first ?? subscriber()).line(new RegExp(`^received ${COUNT} lost 0 torn 0 dup 0 `));
    await sent;
  });

  cppTest(`memfds of a C++ allocator are found by us ${when}`, async ({ client, peer }) => {
    const publisher = () => peer("peer_pub", "--memfd", ...SENDING);
    if (!early) await publisher().line(/^created$/);
    const subscriber = await client.createSubscriber("/f", { reliable: true });
    if (early) publisher();
    await read(subscriber);
  });
}

cppTest("publishers of both kinds use the same split buffers", async ({ client, peer }) => {
  const subscriber = await client.createSubscriber("/f", { reliable: true });
  const theirs = peer("peer_pub", "--split", ...SENDING, "--first=0");
  await theirs.line(/^created$/);
  const counts = [0, 0];
  const sent = (async () => {
    const publisher = await client.createPublisher("/f", { ...SPLIT, local: true });
    for (let sequence = 1000; sequence < 1000 + COUNT; sequence++) {
      const message = new Uint8Array(SIZES[sequence % SIZES.length]);
      fillPeerMessage(message, message.length, sequence);
      await publisher.send(message);
    }
  })();
  for await (const message of subscriber) {
    const sequence = checkPeerMessage(message.data), ours = sequence >= 1000;
    assert.equal(sequence - (ours ? 1000 : 0), counts[Number(ours)]++);
    if (counts[0] === COUNT && counts[1] === COUNT) break;
  }
  await sent;
});

cppTest(
  "a publisher that grows after somebody was killed does not crash the C++ server",
  async ({ client, peer }) => {
    const publisher = await client.createPublisher("/f", { ...SPLIT, reliable: false });
    const another = await client.createSubscriber("/f");
    // Where the server stumbles over one that was killed before it finds the publisher is up to its hashes.
    const victims = Array.from({ length: 6 }, () => peer("peer_sub", "--linger", "--count=1000000"));
    await until("they are known", () => publisher.numSubscribers === 7);
    for (const victim of victims) await victim.kill();
    await until("they are gone", () => publisher.numSubscribers === 1);
    const message = new Uint8Array(20_000);
    fillPeerMessage(message, message.length, 7);
    publisher.publish(message);
    {
      using read = another.read()!;
      assert.equal(checkPeerMessage(read.data), 7);
    }
    assert.equal((await client.channelInfo("/f"))[0].numPublishers, 1, "the server is there");
  },
);
