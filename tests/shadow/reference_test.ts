/** The reference's shadow tests, by name (specification, section 10.2), with our server, shadow and client. */

import assert from "node:assert/strict";
import { Client, type PublisherOptions, type SubscriberOptions } from "../../mod.ts";
import { Doorbell } from "../../shm/layout.ts";
import { Server } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import type { ChannelRecord } from "../../wire/state_dump.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { until } from "./peer.ts";

const slots: PublisherOptions = { slotBytes: 256, numSlots: 4 };

const bytes = (text: string) => new TextEncoder().encode(text);

/** Shadows, a server that can be killed and started again, and clients. */
class Scene implements AsyncDisposable {
  readonly socket = uniqueSocket("server");
  readonly shadows: Shadow[] = [];
  readonly #names: string[] = [];
  readonly #clients: Client[] = [];
  server!: Server;

  static async begin(numShadows = 1): Promise<Scene> {
    const scene = new Scene();
    for (let i = 0; i < numShadows; i++) {
      const socket = uniqueSocket("shadow");
      scene.#names.push(socket);
      scene.shadows.push(Shadow.start({ socket }));
    }
    await scene.start();
    return scene;
  }

  async start(): Promise<void> {
    const [shadowSocket, secondaryShadowSocket] = this.#names;
    this.server = await Server.start({
      socket: this.socket,
      local: true,
      publishServerChannels: false,
      ...(shadowSocket === undefined ? {} : { shadowSocket }),
      ...(secondaryShadowSocket === undefined ? {} : { secondaryShadowSocket }),
    });
  }

  /** The server goes without telling its shadows anything, and the next one comes. */
  async restart(): Promise<void> {
    await this.server.stop();
    await until("the clients notice", () => this.#clients.every((client) => !client.connected));
    await this.start();
    await until("the clients are back", () => this.#clients.every((client) => client.connected));
  }

  async client(): Promise<Client> {
    const client = await Client.connect({ socket: this.socket });
    this.#clients.push(client);
    return client;
  }

  /** A channel as the primary shadow has it. */
  channel(name: string): ChannelRecord | undefined {
    return this.shadows[0].state.channels.get(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map((client) => client[Symbol.asyncDispose]()));
    await until("the server's channels are gone", () => this.server.table.size === 0);
    await this.server.stop();
    for (const shadow of this.shadows) shadow.stop();
  }
}

function inScene(name: string, run: (scene: Scene) => Promise<void>, numShadows = 1): void {
  Deno.test(name, () =>
    withBalancedFds(async () => {
      await using scene = await Scene.begin(numShadows);
      await run(scene);
    }));
}

inScene("ShadowReceivesInit", async (scene) => {
  const [shadow] = scene.shadows;
  await until("init has come", () => shadow.state.sessionId === scene.server.sessionId);
  assert.equal(shadow.state.scb!.stat().bytes, 14336);
});

inScene("ShadowReceivesCreateChannel", async (scene) => {
  const client = await scene.client();
  await client.createPublisher("chan1", slots);
  await until("the channel has come", () => scene.channel("chan1") !== undefined);
  const { info, ccb, bcb } = scene.channel("chan1")!;
  assert.deepEqual([info.slotSize, info.numSlots], [256, 4]);
  assert.deepEqual([ccb.stat().bytes, bcb.stat().bytes], [44352, 12288 + 2 * Doorbell.bytes]);
});

inScene("ShadowReceivesAddPublisher", async (scene) => {
  const client = await scene.client();
  await client.createPublisher("chan2", { slotBytes: 128, numSlots: 5 });
  await until("the publisher has come", () => scene.channel("chan2")?.publishers.size === 1);
  const { info, poll, trigger } = scene.channel("chan2")!.publishers.get(0)!;
  assert.equal(info.maxOutstandingSlotLeases, 1);
  assert.equal(info.processId, BigInt(Deno.pid));
  assert(!poll.closed && !trigger.closed);
});

inScene("ShadowReceivesAddSubscriber", async (scene) => {
  const client = await scene.client();
  await client.createPublisher("chan3", slots);
  await client.createSubscriber("chan3");
  await until("the subscriber has come", () => scene.channel("chan3")?.subscribers.size === 1);
  assert.equal(scene.channel("chan3")!.publishers.size, 1);
  const { poll, trigger } = scene.channel("chan3")!.subscribers.get(1)!;
  assert(!poll.closed && !trigger.closed);
});

inScene("ShadowReceivesRemovePublisher", async (scene) => {
  const client = await scene.client();
  const publisher = await client.createPublisher("chan4", slots);
  await client.createSubscriber("chan4");
  await until("the publisher has come", () => scene.channel("chan4")?.publishers.size === 1);
  await publisher.close();
  await until("it has gone", () => scene.channel("chan4")?.publishers.size === 0);
});

inScene("ShadowReceivesRemoveSubscriber", async (scene) => {
  const client = await scene.client();
  await client.createPublisher("chan5", slots);
  const subscriber = await client.createSubscriber("chan5");
  await until("the subscriber has come", () => scene.channel("chan5")?.subscribers.size === 1);
  await subscriber.close();
  await until("it has gone", () => scene.channel("chan5")?.subscribers.size === 0);
});

inScene("ShadowReceivesRemoveChannel", async (scene) => {
  const client = await scene.client();
  const publisher = await client.createPublisher("chan6", slots);
  await until("the channel has come", () => scene.channel("chan6") !== undefined);
  await publisher.close();
  await until("it has gone", () => scene.channel("chan6") === undefined);
});

inScene("ShadowReceivesRemoveUsers of a client that disconnects (9.2, 5)", async (scene) => {
  const stays = await scene.client();
  const goes = await scene.client();
  await stays.createPublisher("chan7", slots);
  await goes.createSubscriber("chan7");
  await goes.createPublisher("alone", slots);
  await until(
    "all have come",
    () => scene.channel("chan7")?.subscribers.size === 1 && scene.channel("alone") !== undefined,
  );
  await goes[Symbol.asyncDispose]();
  await until(
    "they have gone",
    () => scene.channel("chan7")?.subscribers.size === 0 && scene.channel("alone") === undefined,
  );
});

inScene("ServerWithoutShadowSocketWorks", async (scene) => {
  const client = await scene.client();
  const publisher = await client.createPublisher("chan", slots);
  const subscriber = await client.createSubscriber("chan");
  publisher.publish(bytes("hello"));
  using message = subscriber.read();
  assert.deepEqual(message?.data, bytes("hello"));
}, 0);

inScene("ServerRecoversStateFromShadow", async (scene) => {
  const client = await scene.client();
  await client.createPublisher("recovery_chan", slots);
  await client.createSubscriber("recovery_chan");
  const { sessionId } = scene.server;
  const { id } = scene.server.table.find("recovery_chan")!.physical;
  await scene.restart();
  assert.equal(scene.server.sessionId, sessionId);
  const channel = scene.server.table.find("recovery_chan")!;
  assert.deepEqual([channel.physical.id, channel.physical.layout.numSlots], [id, 4]);
  assert.deepEqual([channel.publishers.size, channel.subscribers.size], [1, 1]);
  await until("the shadow has it again", () => scene.channel("recovery_chan")?.subscribers.size === 1);
});

inScene("ServerFunctionalAfterRecovery", async (scene) => {
  const before = await scene.client();
  const publisher = await before.createPublisher("persist_chan", { slotBytes: 256, numSlots: 16 });
  await before.createSubscriber("persist_chan");
  publisher.publish(bytes("before_crash"));
  await scene.restart();

  const after = await scene.client();
  const late = await after.createSubscriber("persist_chan");
  {
    using old = late.readNewest();
    assert.deepEqual(old?.data, bytes("before_crash"));
  }
  const [freshPublisher, freshSubscriber] = [
    await after.createPublisher("new_chan", slots),
    await after.createSubscriber("new_chan"),
  ];
  freshPublisher.publish(bytes("hello_post"));
  {
    using message = freshSubscriber.read();
    assert.deepEqual(message?.data, bytes("hello_post"));
  }
  const second = await after.createPublisher("persist_chan", { slotBytes: 256, numSlots: 16 });
  second.publish(bytes("after_crash"));
  using message = late.readNewest();
  assert.deepEqual(message?.data, bytes("after_crash"));
});

inScene("ClientReconnectsAfterServerRestart", async (scene) => {
  const client = await scene.client();
  const publisher = await client.createPublisher("reconnect_chan", { slotBytes: 256, numSlots: 16 });
  const subscriber = await client.createSubscriber("reconnect_chan");
  const exchange = (text: string) => {
    publisher.publish(bytes(text));
    using message = subscriber.read();
    assert.deepEqual(message?.data, bytes(text));
  };
  exchange("pre_crash");
  await scene.server.stop();
  exchange("without a server");
  await scene.start();
  exchange("with a server that does not know us yet");
  await until("the client is back", () => client.connected);
  exchange("post_crash");
  const users = [...scene.server.table.find("reconnect_chan")!.users()];
  assert.deepEqual(users.map(({ id, client }) => [id, client === null]), [[0, false], [1, false]]);
  await client.createPublisher("reconnect_new_chan", slots);
});

inScene("RecoverFromPrimaryWhenBothHealthy", async (scene) => {
  const client = await scene.client();
  await client.createPublisher("dual_chan", slots);
  const { sessionId } = scene.server;
  await scene.restart();
  assert.equal(scene.server.sessionId, sessionId);
  for (const shadow of scene.shadows) {
    await until(
      "each shadow has it again",
      () => shadow.state.channels.get("dual_chan")?.publishers.size === 1,
    );
  }
}, 2);

inScene("RecoverFromSecondaryWhenPrimaryDown", async (scene) => {
  const client = await scene.client();
  await client.createPublisher("dual_chan", slots);
  const { sessionId } = scene.server;
  scene.shadows[0].stop();
  await scene.restart();
  assert.equal(scene.server.sessionId, sessionId);
  assert.equal(scene.server.table.find("dual_chan")!.publishers.size, 1);
}, 2);

inScene("FreshStartWhenBothShadowsEmpty", async (scene) => {
  assert.equal(scene.server.table.size, 0);
  for (const shadow of scene.shadows) {
    await until("init has come", () => shadow.state.sessionId === scene.server.sessionId);
  }
}, 2);

inScene("what a lossless stream needs survives any number of restarts", async (scene) => {
  const client = await scene.client();
  const reliable: SubscriberOptions = { reliable: true };
  const subscriber = await client.createSubscriber("stream", reliable);
  const publisher = await client.createPublisher("stream", { slotBytes: 64, numSlots: 8, reliable: true });
  const received: number[] = [];
  for (let restart = 0; restart < 5; restart++) {
    for (let i = 0; i < 20; i++) {
      await publisher.send(new Uint8Array([restart * 20 + i]));
      await subscriber.wait();
      using message = subscriber.read();
      received.push(message!.data[0]);
    }
    await scene.restart();
  }
  assert.deepEqual(received, Array.from({ length: 100 }, (_, i) => i));
});
