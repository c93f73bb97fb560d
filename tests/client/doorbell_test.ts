/** Doorbells between clients: who is told of them, and who is written to. */

import assert from "node:assert/strict";
import { drain } from "../../ffi/eventfd.ts";
import { pollSync } from "../../ffi/poll.ts";
import { Client, type ConnectOptions } from "../../mod.ts";
import type { CreateSubscriberResponse } from "../../proto/subspace_pb.ts";
import { Server } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { ControlBlocks } from "../../shm/control_blocks.ts";
import { SleepFlag } from "../../shm/doorbell.ts";
import { SystemControlBlock } from "../../shm/system_control_block.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { RawClient } from "../server/raw_client.ts";
import { eventually } from "./cases.ts";

const SMALL = { slotBytes: 64, numSlots: 8 };
const bytes = (text: string) => new TextEncoder().encode(text);

interface Stage {
  readonly socket: string;
  connect(options?: ConnectOptions): Promise<Client>;
}

function test(name: string, run: (stage: Stage) => Promise<void>): void {
  Deno.test(name, () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("doorbell");
      const server = await Server.start({ socket, local: true });
      const clients: Client[] = [];
      try {
        await run({
          socket,
          connect: async (options) => {
            const client = await Client.connect({ socket, ...options });
            clients.push(client);
            return client;
          },
        });
      } finally {
        for (const client of clients) await client.close();
        await server.stop();
      }
    }));
}

/** A subscriber that is nothing but its eventfd and its flag. */
class BareSubscriber implements Disposable {
  readonly trigger: number;
  readonly flag: SleepFlag;
  readonly #blocks: ControlBlocks;
  readonly #scb = SystemControlBlock.create();

  constructor(raw: RawClient, channelName: string, answer: CreateSubscriberResponse) {
    this.trigger = raw.fds[answer.triggerFdIndex].number;
    this.#blocks = ControlBlocks.attach(
      { channelName, numSlots: answer.numSlots, queueArenaBytes: 0 },
      this.#scb.counters(0),
      raw.fds[answer.ccbFdIndex].duplicate(),
      raw.fds[answer.bcbFdIndex].duplicate(),
    );
    this.flag = new SleepFlag(this.#blocks, "subscribers", answer.subscriberId);
  }

  [Symbol.dispose](): void {
    this.#blocks[Symbol.dispose]();
    this.#scb[Symbol.dispose]();
  }
}

for (
  const [who, subscriberSays, publisherSays] of [
    ["both say so", true, true],
    ["the subscriber does not say when it sleeps", false, true],
    ["the publisher's client has them switched off", true, false],
  ] as const
) {
  test(`an eventfd is written only to wake a sleeper if both sides agree on it: ${who}`, async (stage) => {
    using raw = await RawClient.connect(stage.socket);
    const client = await stage.connect(publisherSays ? {} : { doorbell: false });
    const publisher = await client.createPublisher("/bell", SMALL);
    const answer = await raw.createSubscriber("/bell", { doorbell: subscriberSays });
    using subscriber = new BareSubscriber(raw, "/bell", answer);
    // Whoever is new is signalled once, when the publisher has learnt of it.
    await eventually("the publisher knows it", () => {
      publisher.getBuffer();
      return drain(subscriber.trigger);
    });
    const always = !subscriberSays || !publisherSays;
    for (const sleeps of [false, true, false]) {
      if (sleeps) subscriber.flag.fallAsleep();
      publisher.publish(bytes("x"));
      assert.equal(drain(subscriber.trigger), always || sleeps);
    }
  });
}

test("the server says who sleeps to those who ask, and to nobody else", async ({ socket }) => {
  using raw = await RawClient.connect(socket);
  const publisher = await raw.createPublisher("/asked", { isReliable: true, doorbell: true });
  const plain = await raw.createSubscriber("/asked");
  assert.deepEqual(plain.reliablePubTriggerSleepers, []);
  const ours = await raw.createSubscriber("/asked", { doorbell: true });
  assert.deepEqual(ours.reliablePubTriggerSleepers, [publisher.publisherId + 1]);
  const asked = (doorbell: boolean) =>
    raw.request("getTriggers", { case: "getTriggers", value: { channelName: "/asked", doorbell } });
  const { subTriggerSleepers, reliablePubTriggerSleepers, subTriggerFdIndexes } = await asked(true);
  assert.deepEqual([...subTriggerSleepers].sort(), [0, ours.subscriberId + 1]);
  assert.deepEqual(reliablePubTriggerSleepers, [publisher.publisherId + 1]);
  assert.equal(subTriggerFdIndexes.length, 2);
  const unasked = await asked(false);
  assert.deepEqual([unasked.subTriggerSleepers, unasked.reliablePubTriggerSleepers], [[], []]);
  const second = await raw.createPublisher("/asked", { isReliable: true });
  assert.deepEqual(second.subTriggerSleepers, []);
});

test("who polls for itself is signalled with each message, and no more once all is read", async ({ connect }) => {
  const client = await connect();
  const subscriber = await client.createSubscriber("/poll");
  const publisher = await client.createPublisher("/poll", SMALL);
  await eventually("the channel has its memory", () => subscriber.numSlots > 0);
  publisher.publish(bytes("before"));
  const { pollFd } = subscriber;
  const readable = () => pollSync([pollFd], 0).length === 1;
  assert(readable(), "the message was there before");
  subscriber.read()!.release();
  assert(readable(), "there may be more");
  assert.equal(subscriber.read(), null);
  assert(!readable());
  for (let i = 0; i < 3; i++) {
    publisher.publish(bytes("next"));
    assert(readable());
    {
      using _held = subscriber.read()!;
      assert.equal(subscriber.read(), null);
      assert(!readable(), "it holds as much as it may");
    }
    assert(readable(), "it may read again");
    assert.equal(subscriber.read(), null);
    assert(!readable());
  }
});

test("who polls for itself and reads the newest is not called again for what it has seen", async ({ connect }) => {
  const client = await connect();
  const subscriber = await client.createSubscriber("/newest");
  const publisher = await client.createPublisher("/newest", SMALL);
  await eventually("the channel has its memory", () => subscriber.numSlots > 0);
  const { pollFd } = subscriber;
  publisher.publish(bytes("older"));
  publisher.publish(bytes("newer"));
  subscriber.readNewest()!.release();
  assert.equal(subscriber.readNewest(), null);
  assert.deepEqual(pollSync([pollFd], 0), []);
  publisher.publish(bytes("next"));
  assert.deepEqual(pollSync([pollFd], 0), [pollFd]);
});

test("a reliable publisher that polls for itself is signalled with each release", async ({ connect }) => {
  const client = await connect();
  const publisher = await client.createPublisher("/slots", { slotBytes: 64, numSlots: 3, reliable: true });
  const subscriber = await client.createSubscriber("/slots", { reliable: true });
  const { pollFd } = publisher;
  const readable = () => pollSync([pollFd], 0).length === 1;
  for (let round = 0; round < 3; round++) {
    while (publisher.publish(bytes("x")));
    assert(!readable());
    subscriber.read()!.release();
    assert(readable());
    assert(publisher.publish(bytes("y")));
  }
});

test("nothing is lost of batches, however few wake-ups there are", async ({ connect }) => {
  const client = await connect();
  const publisher = await client.createPublisher("/batch", { ...SMALL, reliable: true, autoFlush: false });
  const subscriber = await (await connect()).createSubscriber("/batch", { reliable: true });
  const received: string[] = [];
  const reading = (async () => {
    for await (const message of subscriber) received.push(new TextDecoder().decode(message.data));
  })();
  // More than there are slots: waiting for one wakes the subscriber too.
  for (let i = 0; i < 30; i++) await publisher.send(bytes(String(i)));
  publisher.flush();
  await eventually("the batch is read", () => received.length === 30);
  await publisher.send(bytes("last"));
  await publisher.close();
  await eventually("closing has flushed", () => received.at(-1) === "last");
  await subscriber.close();
  await reading;
});

Deno.test("who says when it sleeps is known after a recovery from a shadow", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("doorbell"), shadowSocket = uniqueSocket("shadow");
    using stack = new DisposableStack();
    const shadow = Shadow.start({ socket: shadowSocket });
    stack.defer(() => shadow.stop());
    const start = () => Server.start({ socket, local: true, shadowSocket });
    let server = await start();
    using raw = await RawClient.connect(socket);
    const { subscriberId } = await raw.createSubscriber("/kept", { doorbell: true });
    await server.stop();
    server = await start();
    try {
      using other = await RawClient.connect(socket);
      const { subTriggerSleepers } = await other.createPublisher("/kept", { doorbell: true });
      assert.deepEqual(subTriggerSleepers, [subscriberId + 1]);
      await other.createSubscriber("/kept", { subscriberId });
      const { subTriggerSleepers: later } = await other.createPublisher("/kept", { doorbell: true });
      assert.deepEqual(later, [0], "it came back and did not say so");
    } finally {
      await server.stop();
    }
  }));
