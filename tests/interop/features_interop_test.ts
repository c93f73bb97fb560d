/** Each feature of our client with the C++ server, and with C++ publishers and subscribers. */

import assert from "node:assert/strict";
import { type Client, crc32c, type PublisherOptions } from "../../mod.ts";
import { featureCases } from "../client/feature_cases.ts";
import { cppTest, type StartPeer } from "./cpp_server.ts";
import { checkPeerMessage, fillPeerMessage } from "./peer_messages.ts";

const test = (name: string, run: (client: Client, peer: StartPeer) => Promise<void>) =>
  cppTest(name, ({ client, peer }) => run(client, peer));

for (const [name, run] of Object.entries(featureCases)) test(`C++ server: ${name}`, run);

const SMALL = { slotBytes: 256, numSlots: 16, reliable: true };

/** Publishes so many messages as the C++ peers do, each with its number in all of its metadata. */
async function send(client: Client, count: number, options: Partial<PublisherOptions>): Promise<void> {
  const publisher = await client.createPublisher("/f", { ...SMALL, ...options });
  const metadata = new Uint8Array(options.metadataBytes ?? 0);
  for (let sequence = 0; sequence < count; sequence++) {
    const message = new Uint8Array(64 + sequence % 100);
    fillPeerMessage(message, message.length, sequence);
    while (!publisher.publish(message, metadata.fill(sequence))) await publisher.wait();
  }
}

for (const metadataBytes of [0, 12, 13, 500]) {
  test(
    `our checksums and ${metadataBytes} bytes of metadata are right to C++ subscribers`,
    async (client, peer) => {
      const subscriber = peer(
        "peer_sub",
        "--checksum",
        "--reliable",
        "--count=300",
        ...(metadataBytes > 0 ? ["--metadata"] : []),
      );
      await subscriber.line(/^ready$/);
      await send(client, 300, { checksum: true, metadataBytes });
      await subscriber.line(/^received 300 lost 0 torn 0 dup 0 /);
      assert(!subscriber.lines.some((line) => line.includes("bad_checksums")));
    },
  );

  test(
    `checksums and ${metadataBytes} bytes of metadata of C++ publishers are right to us`,
    async (client, peer) => {
      const subscriber = await client.createSubscriber("/f", { reliable: true, checksum: true });
      const args = [
        "--checksum",
        "--reliable",
        "--count=300",
        "--wait_subs=1",
        `--metadata=${metadataBytes}`,
      ];
      peer("peer_pub", ...args, "--linger");
      let next = 0;
      for await (const message of subscriber) {
        assert.equal(checkPeerMessage(message.data), next);
        assert.deepEqual(message.metadata, new Uint8Array(metadataBytes).fill(next));
        if (++next === 300) break;
      }
    },
  );
}

test("C++ subscribers notice a checksum that is not theirs", async (client, peer) => {
  const subscriber = peer("peer_sub", "--checksum", "--reliable", "--count=10");
  await subscriber.line(/^ready$/);
  const other: typeof crc32c = (checksum, ...parts) => {
    crc32c(checksum, ...parts);
    checksum[0] ^= 1;
  };
  await send(client, 10, { checksum: other });
  await subscriber.line(/^received 10 lost 0 torn 10 /);
  await subscriber.line(/bad_checksums 10/);
});

test("what we publish by lease, C++ subscribers read in the order of publication", async (client, peer) => {
  const subscriber = peer("peer_sub", "--reliable", "--count=200");
  await subscriber.line(/^ready$/);
  const options = { ...SMALL, maxOutstandingLeases: 4, notifyRetirement: true };
  const publisher = await client.createPublisher("/f", options);
  for (let sequence = 0; sequence < 200; sequence++) {
    using lease = publisher.lease();
    if (lease === null) {
      await publisher.wait();
      sequence--;
      continue;
    }
    fillPeerMessage(lease.buffer, 100, sequence);
    lease.publish(100);
  }
  await subscriber.line(/^received 200 lost 0 torn 0 dup 0 /);
  let heard = 0;
  for await (const slotId of publisher.retirements) {
    assert(slotId >= 0 && slotId < 16);
    if (++heard === 100) break;
  }
});

test(
  "what C++ publishers publish by lease, we read; and they hear of the slots that we retire",
  async (client, peer) => {
    const subscriber = await client.createSubscriber("/f");
    const publisher = peer("peer_pub", "--lease", "--count=10", "--wait_subs=1", "--retired=10", "--linger");
    let next = 0;
    for await (const message of subscriber) {
      assert.equal(checkPeerMessage(message.data), next);
      if (++next === 10) break;
    }
    await publisher.line(/^retired 10$/);
  },
);

test("a C++ publisher that says it is there is seen by who asks for it", async (client, peer) => {
  const subscriber = await client.createSubscriber("/f", { passActivation: true });
  peer("peer_pub", "--activate", "--count=1", "--wait_subs=1", "--linger");
  const seen: boolean[] = [];
  for await (const message of subscriber) if (seen.push(message.isActivation) === 2) break;
  assert.deepEqual(seen, [true, false]);
});

test("a C++ tunnel's messages are marked", async (client, peer) => {
  const subscriber = await client.createSubscriber("/f");
  peer("peer_pub", "--tunnel", "--count=1", "--wait_subs=1", "--linger");
  assert(await subscriber.wait());
  using message = subscriber.read()!;
  assert(message.isCrossMachine);
});

test("several messages of a C++ publisher are held, and found again by their times", async (client, peer) => {
  const subscriber = await client.createSubscriber("/f", { maxActiveMessages: 3 });
  const publisher = peer("peer_pub", "--count=3", "--wait_subs=1", "--linger");
  await publisher.line(/^published 3$/);
  assert(await subscriber.wait());
  const held = [0, 1, 2].map(() => subscriber.read()!);
  assert.deepEqual(held.map(({ data }) => checkPeerMessage(data)), [0, 1, 2]);
  const { timestampNs } = held[1];
  for (const message of held) message.release();
  using found = subscriber.find(timestampNs)!;
  assert.equal(checkPeerMessage(found.data), 1);
});

test("C++ subscribers hold several of our messages, and count what they missed", async (client, peer) => {
  const subscriber = peer("peer_sub", "--max_active=4", "--count=100");
  await subscriber.line(/^ready$/);
  await send(client, 100, { reliable: false, numSlots: 200 });
  await subscriber.line(/^received 100 lost 0 torn 0 dup 0 /);
});
