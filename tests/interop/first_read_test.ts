/** What C++ subscribers do before their first message, while one of our reliable publishers looks for slots. */

import assert from "node:assert/strict";
import type { Client, Publisher, Subscriber } from "../../mod.ts";
import { cppTest, type StartPeer } from "./cpp_server.ts";
import { fillPeerMessage } from "./peer_messages.ts";

/** Without the rule of `shm/core/reuse.ts` about one round in forty loses a message. */
const ROUNDS = 25;
const COUNT = 2000;
/** Looks for a slot before the event loop, which hears of the peer, gets its turn. */
const LOOKS = 2000;

cppTest(
  "a C++ subscriber loses nothing that is published while it reads for the first time",
  async (server) => {
    for (let round = 0; round < ROUNDS; round++) await readForTheFirstTime(server, `/first/${round}`);
  },
);

async function readForTheFirstTime(
  { client, peer }: { client: Client; peer: StartPeer },
  channel: string,
): Promise<void> {
  await using publisher = await client.createPublisher(channel, {
    reliable: true,
    numSlots: 40,
    slotBytes: 64,
  });
  await using reader = await client.createSubscriber(channel, { reliable: true });
  const subscriber = peer(
    "peer_sub",
    `--channel=${channel}`,
    "--reliable",
    `--count=${COUNT}`,
    "--timeout_ms=2000",
  );
  await publishAtFullSpeed(publisher, reader);
  const [line] = await subscriber.line(/^received .*/);
  assert.match(line, new RegExp(`^received ${COUNT} lost 0 torn 0 dup 0 `));
}

/** From the moment that the server knows of the subscriber, which is before its first read. */
async function publishAtFullSpeed(publisher: Publisher, reader: Subscriber): Promise<void> {
  for (let sequence = 0, looks = 0; sequence < COUNT;) {
    if (++looks % LOOKS === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    const buffer = publisher.numSubscribers > 1 ? publisher.getBuffer(64) : null;
    if (buffer !== null) {
      fillPeerMessage(buffer, 64, sequence++);
      publisher.publish(64);
    } else for (let message = reader.read(); message !== null; message = reader.read()) message.release();
  }
}
