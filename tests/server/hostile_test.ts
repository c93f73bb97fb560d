/** A hostile or broken client gets nowhere: an answer or a closed connection, and everybody else is served. */

import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { createEventFd } from "../../ffi/eventfd.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { createMemory, openNamed } from "../../ffi/memory_object.ts";
import { sendMessage } from "../../ffi/message.ts";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { RequestSchema } from "../../proto/subspace_pb.ts";
import { Bcb, Ccb } from "../../shm/layout.ts";
import { frame } from "../../wire/frame.ts";
import { sendRequest } from "../../wire/client_link.ts";
import { until } from "../deployment.ts";
import { RawClient } from "./raw_client.ts";
import { channelOf, sharedMemoryExists, type Stage, test } from "./running_server.ts";

/** Waits until the server has closed a client's connection, which takes that client's users with it. */
async function closes(
  server: Stage["server"],
  bytes: Uint8Array<ArrayBuffer>,
  socket: string,
): Promise<void> {
  using hostile = connectAbstract(socket);
  await until("the client is there", () => server.numClients === 1);
  sendMessage(hostile, bytes);
  await until("the client is thrown out", () => server.numClients === 0);
}

const hostileBytes: Record<string, Uint8Array<ArrayBuffer>> = {
  "a length of 4 GiB": new Uint8Array([255, 255, 255, 255]),
  "a length of 2 MiB": new Uint8Array([0, 32, 0, 0]),
  "an empty message": new Uint8Array(4),
  "no protobuf": frame(new Uint8Array([255, 255, 255, 255, 255])),
  "an unknown request": frame(new Uint8Array([0xfa, 0x01, 0x00])),
  "a string that is no UTF-8": frame(new Uint8Array([0x0a, 0x04, 0x0a, 0x02, 0xff, 0xfe])),
};
for (const [what, bytes] of Object.entries(hostileBytes)) {
  test(`a client that sends ${what} is thrown out`, async ({ server, socket, connect }) => {
    await closes(server, bytes, socket);
    const client = await connect();
    assert.equal((await client.createPublisher("c")).error, "");
  });
}

test("a client that ends in the middle of a message takes its users with it", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("c");
  sendMessage(client.connection.socket, new Uint8Array([0, 0, 0, 9, 1, 2]));
  client.close();
  await until("it is gone", () => server.numClients === 0);
  assert.equal(server.table.find("c"), undefined);
});

test("fds that come without being announced throw a client out, and are closed", async ({ server, connect }) => {
  const client = await connect();
  using fd = createMemory("surprise", 64);
  const message = toBinary(
    RequestSchema,
    create(RequestSchema, { request: { case: "getChannelInfo", value: {} } }),
  );
  sendMessage(client.connection.socket, frame(message), [fd]);
  await until("it is thrown out", () => server.numClients === 0);
});

test("numbers at the ends of their ranges are answered", async ({ server, connect }) => {
  const client = await connect();
  const numbers = [-0x8000_0000, -1, 0, 1, 0x7fff_ffff];
  for (const number of numbers) {
    for (
      const traits of [
        { numSlots: number },
        { slotSize: number },
        { vchanId: number, mux: "/m" },
        { checksumSize: number },
        { metadataSize: number },
        { publisherId: number },
        { maxPublishers: number },
        { maxOutstandingSlotLeases: number },
        { activeQueuePublishDepth: number >>> 0, publisherId: 0 },
      ]
    ) await client.createPublisher("c", traits);
    for (
      const traits of [
        { subscriberId: number },
        { vchanId: number, mux: "/n" },
        { maxActiveMessages: number },
        { subscriberQueueSize: number },
        { maxSubscribers: number },
      ]
    ) await client.createSubscriber("s", traits);
    await client.removePublisher("c", number);
    await client.removeSubscriber("s", number);
    await client.getClientBuffers("c", 2n ** 64n - 1n, number >>> 0);
  }
  const huge = { subscriberQueueArenaSize: 2n ** 64n - 1n, processId: 2n ** 64n - 1n };
  assert.match((await client.createPublisher("h", huge)).error, /RESOURCE_EXHAUSTED/);
  client.close();
  await until("it is gone", () => server.numClients === 0);
  assert.equal(server.table.size, 2);
});

test("a subscriber that claims a negative number of messages makes no room for others", async ({ connect }) => {
  const client = await connect();
  await client.createPublisher("c");
  await client.createSubscriber("c", { maxActiveMessages: -100 });
  assert.match((await client.createSubscriber("c", { maxActiveMessages: 3 })).error, /Insufficient capacity/);
});

test("strange names are names like others", async ({ server, connect }) => {
  const client = await connect();
  for (const name of ["", "\0", "a\0b", "é".repeat(2000), "../../etc/passwd", "{name}", "/subspace"]) {
    const { error, publisherId } = await client.createPublisher(name);
    assert.equal(error, "", JSON.stringify(name));
    assert.equal((await client.createSubscriber(name)).error, "");
    assert.equal((await client.removePublisher(name, publisherId)).error, "");
  }
  client.close();
  await until("it is gone", () => server.numClients === 0);
  assert.equal(server.table.size, 2);
});

test("a client that never reads waits, and holds up nobody", async ({ server, socket, connect }) => {
  const client = await connect();
  for (let i = 0; i < 100; i++) await client.createSubscriber(`/a/channel/with/a/rather/long/name/${i}`);
  using hostile = new RawClient(socket);
  for (let i = 0; i < 2000; i++) hostile.send({ case: "getChannelInfo", value: {} });
  assert.equal((await client.createPublisher("c")).error, "");
  assert.equal(server.numClients, 2);
  // It may begin to read, and gets all that it asked for.
  for (let i = 0; i < 2000; i++) await hostile.receive();
  assert.equal((await client.getChannelInfo("c")).error, "");
});

test("a client that never takes its fds waits, and holds up nobody", async ({ socket, connect }) => {
  const client = await connect();
  for (let i = 0; i < 300; i++) {
    await client.createSubscriber("c", { isReliable: true, maxActiveMessages: 0 });
  }
  using hostile = new RawClient(socket);
  for (let i = 0; i < 200; i++) hostile.send({ case: "getTriggers", value: { channelName: "c" } });
  assert.equal((await client.getTriggers("c")).subTriggerFdIndexes.length, 300);
  assert.equal((await client.createPublisher("c", { isReliable: true })).error, "");
});

test("a client that floods the server with requests does not starve the others", async ({ socket, connect }) => {
  const client = await connect();
  using flood = new RawClient(socket);
  for (let i = 0; i < 20_000; i++) flood.send({ case: "getTriggers", value: { channelName: "none" } });
  const { error } = await client.createPublisher("c");
  assert.equal(error, "");
});

test("a client that spoils a control block spoils its channel, not the server", async ({ server, connect }) => {
  const client = await connect(), other = await connect();
  await client.createPublisher("c", { numSlots: 16, subscriberQueueArenaSize: 8000n });
  await client.createSubscriber("c");
  const { physical } = channelOf(server, "c");
  using ccb = Mapping.map(physical.blocks.ccbFd, physical.blocks.bytes);
  using bcb = Mapping.map(physical.blocks.bcbFd, Bcb.bytes);
  for (const value of [0xff, 0x7f, 0x80, 0x01, 0xaa]) {
    ccb.bytes.fill(value);
    bcb.bytes.fill(value);
    await client.createSubscriber("c");
    await client.createPublisher("c", { numSlots: 16, subscriberQueueArenaSize: 8000n });
    await other.getChannelInfo();
    await other.getChannelStats();
    await client.removeSubscriber("c", 1);
  }
  ccb.view.setInt32(Ccb.numBuffers, 0x7fff_ffff, true);
  client.close();
  await until("it is gone", () => server.numClients === 1);
  assert.equal(server.table.find("c"), undefined);
  assert.equal((await other.createPublisher("c")).error, "");
});

test("registered names make the server remove nothing but split buffers", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("c", { numSlots: 16, useSplitBuffers: true });
  const mine = `subspace_sb_${server.sessionId.toString(16).padStart(16, "0")}`;
  const foreign = `foreign_${server.sessionId}`;
  for (const name of [mine, foreign]) openNamed(name, { create: true })!.close();
  const names = [mine, foreign, `../shm/${foreign}`, "\0", ""];
  for (const [slotId, objectName] of names.entries()) {
    const metadata = {
      channelName: "c",
      sessionId: server.sessionId,
      slotId,
      objectName,
      shadowFile: `/dev/shm/${foreign}`,
    };
    const response = await client.request("registerClientBuffer", {
      case: "registerClientBuffer",
      value: { metadata },
    });
    assert.equal(response.error, "");
  }
  client.close();
  await until("it is gone", () => server.numClients === 0);
  const left = [mine, foreign].map(sharedMemoryExists);
  server.table.host.removeSharedMemory(foreign);
  assert.deepEqual(left, [false, true]);
});

test("a channel has no more registered parts than it can have", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("c", { numSlots: 4, useSplitBuffers: true });
  const register = (bufferIndex: number, slotId: number) => {
    const metadata = { channelName: "c", sessionId: server.sessionId, bufferIndex, slotId };
    return client.request("registerClientBuffer", { case: "registerClientBuffer", value: { metadata } });
  };
  assert.match((await register(1024, 0)).error, /INVALID_ARGUMENT/);
  assert.match((await register(0, 4)).error, /INVALID_ARGUMENT/);
  assert.equal((await register(1023, 3)).error, "");
});

test("an fd of any kind can be registered, and comes back as it is", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("c", { numSlots: 16, useSplitBuffers: true });
  using eventFd = createEventFd();
  const metadata = { channelName: "c", sessionId: server.sessionId };
  sendRequest(client.connection, {
    request: { case: "registerClientBuffer", value: { metadata, hasFd: true } },
  }, eventFd);
  await client.receive();
  const { fdIndexes } = await client.getClientBuffers("c", server.sessionId);
  assert.deepEqual(fdIndexes, [0]);
  assert.equal(client.fds[0].stat().inode, eventFd.stat().inode);
});
