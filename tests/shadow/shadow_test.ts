import assert from "node:assert/strict";
import { createEventFd, drain, signal } from "../../ffi/eventfd.ts";
import type { Fd } from "../../ffi/fd.ts";
import { readInt32, writeInt32 } from "../../ffi/pipe.ts";
import { pollSync } from "../../ffi/poll.ts";
import { Shadow, type ShadowOptions } from "../../shadow/shadow.ts";
import { closeDump, type StateDump } from "../../wire/state_dump.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { fdsFor, Peer, until } from "./peer.ts";

const channelName = "/a";

function start(options: Partial<ShadowOptions> = {}): { shadow: Shadow; socket: string } & Disposable {
  const socket = uniqueSocket("shadow");
  const shadow = Shadow.start({ socket, ...options });
  return { shadow, socket, [Symbol.dispose]: () => shadow.stop() };
}

function inode(fd: Fd | null): bigint {
  return fd!.stat().inode;
}

/** Whether what one eventfd counts can be taken from the other: they are the same open file. */
function sameEventFd(a: Fd, b: Fd): boolean {
  drain(a.number);
  signal(b.number);
  return drain(a.number);
}

/** What somebody who connects now is told. */
async function dumpOf(socket: string): Promise<StateDump & Disposable> {
  using peer = new Peer(socket);
  const dump = await peer.dump();
  return { ...dump, [Symbol.dispose]: () => closeDump(dump) };
}

Deno.test("a shadow without state sends an empty dump at once", () =>
  withBalancedFds(async () => {
    using run = start();
    using dump = await dumpOf(run.socket);
    assert.equal(dump.sessionId, 0n);
    assert.equal(dump.scb, null);
    assert.equal(dump.channels.size, 0);
  }));

Deno.test("a second shadow on the same socket cannot start, and says why", () =>
  withBalancedFds(() => {
    using run = start();
    assert.throws(() => Shadow.start({ socket: run.socket }), /Cannot listen on .*: EADDRINUSE/);
  }));

Deno.test("a reader gets every record and every fd back in its place", () =>
  withBalancedFds(async () => {
    using run = start();
    using server = await Peer.writing(run.socket, 42n);
    const channel = {
      channelId: 5,
      slotSize: 256,
      numSlots: 4,
      type: new Uint8Array([0, 255]),
      checksumSize: 20,
      metadataSize: 16,
      subscriberQueueArenaSize: 64000n,
    };
    const scb = fdsFor({ case: "init", value: {} });
    const blocks = fdsFor({ case: "createChannel", value: {} });
    const publisher = fdsFor({ case: "addPublisher", value: { notifyRetirement: true } });
    const subscriber = fdsFor({ case: "addSubscriber", value: {} });
    const buffer = createEventFd();
    server.send({ case: "init", value: { sessionId: 43n } }, scb);
    server.send({ case: "createChannel", value: { channelName, ...channel } }, blocks);
    server.send({
      case: "updateChannelOptions",
      value: { channelName, hasMaxPublishers: true, maxPublishers: 2 },
    });
    server.send({
      case: "registerClientBuffer",
      value: { metadata: { channelName, slotId: 1 }, hasFd: true },
    }, [
      buffer,
    ]);
    server.send({ case: "registerClientBuffer", value: { metadata: { channelName, slotId: 2 } } });
    server.send({
      case: "addPublisher",
      value: {
        channelName,
        publisherId: 0,
        notifyRetirement: true,
        processId: 9n,
        maxOutstandingSlotLeases: 3,
      },
    }, publisher);
    server.send(
      { case: "addSubscriber", value: { channelName, subscriberId: 1, isReliable: true } },
      subscriber,
    );

    using dump = await dumpOf(run.socket);
    assert.equal(dump.sessionId, 43n);
    assert.equal(inode(dump.scb), inode(scb[0]));
    const record = dump.channels.get(channelName)!;
    const { channelId, slotSize, numSlots, type, checksumSize, metadataSize, subscriberQueueArenaSize } =
      record.info;
    assert.deepEqual(
      { channelId, slotSize, numSlots, type, checksumSize, metadataSize, subscriberQueueArenaSize },
      channel,
    );
    assert(record.info.hasMaxPublishers);
    assert.equal(record.info.maxPublishers, 2);
    assert.deepEqual([inode(record.ccb), inode(record.bcb)], blocks.map(inode));
    const { info, poll, trigger, retirement } = record.publishers.get(0)!;
    assert.equal(info.processId, 9n);
    assert.equal(info.maxOutstandingSlotLeases, 3);
    assert(sameEventFd(poll, publisher[0]));
    assert(sameEventFd(trigger, publisher[1]));
    assert(!sameEventFd(poll, publisher[1]));
    writeInt32(publisher[3].number, 77);
    assert.equal(readInt32(retirement!.read.number), 77);
    writeInt32(retirement!.write.number, 78);
    assert.equal(readInt32(publisher[2].number), 78);
    const user = record.subscribers.get(1)!;
    assert(user.info.isReliable);
    assert(sameEventFd(user.trigger, subscriber[0]));
    assert(sameEventFd(user.poll, subscriber[1]));
    const buffers = [...record.clientBuffers.values()];
    assert.deepEqual(buffers.map(({ fd }) => fd !== null), [true, false]);
    assert(sameEventFd(buffers[0].fd!, buffer));
    for (const fd of [...scb, ...blocks, ...publisher, ...subscriber, buffer]) fd.close();
  }));

Deno.test("the state outlives its server", () =>
  withBalancedFds(async () => {
    using run = start();
    {
      using server = await Peer.writing(run.socket, 42n);
      server.send({ case: "createChannel", value: { channelName } });
    }
    using dump = await dumpOf(run.socket);
    assert.deepEqual([...dump.channels.keys()], [channelName]);
    using next = await Peer.writing(run.socket, 43n);
    next.send({ case: "removeChannel", value: { channelName } });
    await until("the next server writes", () => run.shadow.state.sessionId === 43n);
    assert.equal(run.shadow.state.channels.size, 0);
    assert(!next.connection.closed);
  }));

Deno.test("a dump has in it all that a server sent before it died", () =>
  withBalancedFds(async () => {
    using run = start();
    for (let round = 0; round < 20; round++) {
      const server = await Peer.writing(run.socket, 42n);
      // Nothing yields between sending, dying and connecting: the shadow sees all of it in one turn.
      for (let i = 0; i < 60; i++) server.send({ case: "createChannel", value: { channelName: `/${i}` } });
      server.connection.close();
      using dump = await dumpOf(run.socket);
      assert.equal(dump.channels.size, 60);
    }
  }));

Deno.test("a second server at the same time is refused, and the state stays the first one's", () =>
  withBalancedFds(async () => {
    using run = start();
    using first = await Peer.writing(run.socket, 1n);
    first.send({ case: "createChannel", value: { channelName } });
    using second = await Peer.writing(run.socket, 2n);
    second.send({ case: "createChannel", value: { channelName: "/b" } });
    assert.equal(await second.connection.receive({ decode: () => null, fdsFollow: () => false }), null);
    first.send({ case: "createChannel", value: { channelName: "/c" } });
    await until("the first goes on", () => run.shadow.state.channels.has("/c"));
    assert.equal(run.shadow.state.sessionId, 1n);
    assert.deepEqual([...run.shadow.state.channels.keys()], [channelName, "/c"]);
    first.connection.close();
    using third = await Peer.writing(run.socket, 3n);
    third.send({ case: "removeChannel", value: { channelName } });
    await until("a third may", () => run.shadow.state.sessionId === 3n);
    assert(!third.connection.closed);
  }));

Deno.test("events before init are refused", () =>
  withBalancedFds(async () => {
    using run = start();
    {
      using server = await Peer.writing(run.socket, 1n);
      server.send({ case: "createChannel", value: { channelName } });
    }
    using intruder = new Peer(run.socket);
    closeDump(await intruder.dump());
    intruder.send({ case: "removeChannel", value: { channelName } });
    assert.equal(await intruder.connection.receive({ decode: () => null, fdsFollow: () => false }), null);
    assert.equal(run.shadow.state.channels.size, 1);
  }));

Deno.test("an event that makes no sense is passed over, and the link goes on", () =>
  withBalancedFds(async () => {
    using run = start();
    using server = await Peer.writing(run.socket, 1n);
    server.send({ case: "addPublisher", value: { channelName: "/unknown", notifyRetirement: true } });
    server.connection.send(new Uint8Array([0xa2, 0x06, 0x02, 0x08, 0x01])); // Member 100: from a later version.
    server.send({ case: "createChannel", value: { channelName } });
    await until("the channel is there", () => run.shadow.state.channels.has(channelName));
  }));

Deno.test("readers that do not read block nobody, and each gets the state of its moment", () =>
  withBalancedFds(async () => {
    using run = start();
    using server = await Peer.writing(run.socket, 1n);
    const names = Array.from({ length: 1000 }, (_, i) => `/${i}`);
    for (const name of names) {
      server.send({ case: "createChannel", value: { channelName: name } });
      await server.connection.drained();
    }
    await until("all channels are there", () => run.shadow.state.channels.size === names.length);

    using early = new Peer(run.socket);
    await until("the early reader is served", () => pollSync([early.connection.socket.number], 0).length > 0);
    for (const name of names.slice(0, 500)) {
      server.send({ case: "removeChannel", value: { channelName: name } });
      await server.connection.drained();
    }
    await until("half of them are gone", () => run.shadow.state.channels.size === 500);
    using late = await dumpOf(run.socket);
    assert.deepEqual([...late.channels.keys()], names.slice(500));
    const dump = await early.dump();
    assert.deepEqual([...dump.channels.keys()], names);
    assert([...dump.channels.values()].every(({ ccb }) => ccb.stat().bytes === 35456));
    closeDump(dump);
  }));

Deno.test("a reader that reads nothing is dropped after a while", () =>
  withBalancedFds(async () => {
    using run = start({ stallMs: 20 });
    using server = await Peer.writing(run.socket, 1n);
    for (let i = 0; i < 500; i++) {
      server.send({ case: "createChannel", value: { channelName: `/${i}` } });
      await server.connection.drained();
    }
    await until("all channels are there", () => run.shadow.state.channels.size === 500);
    using reader = new Peer(run.socket);
    await until("the reader is served", () => pollSync([reader.connection.socket.number], 0).length > 0);
    await until("the shadow gives up", () => run.shadow.connections === 1);
    await assert.rejects(reader.dump(), /Cannot receive a state dump/);
    server.send({ case: "createChannel", value: { channelName } });
    await until("the server is still heard", () => run.shadow.state.channels.has(channelName));
  }));

Deno.test("a reader that is too slow for the changes is dropped", () =>
  withBalancedFds(async () => {
    using run = start({ heldFdsMax: 100 });
    using server = await Peer.writing(run.socket, 1n);
    for (let i = 0; i < 500; i++) {
      server.send({ case: "createChannel", value: { channelName: `/${i}` } });
      await server.connection.drained();
    }
    await until("all channels are there", () => run.shadow.state.channels.size === 500);
    using reader = new Peer(run.socket);
    await until("the reader is served", () => pollSync([reader.connection.socket.number], 0).length > 0);
    for (let i = 0; i < 100; i++) {
      server.send({ case: "removeChannel", value: { channelName: `/${i}` } });
    }
    await until("the channels are gone", () => run.shadow.state.channels.size === 400);
    await assert.rejects(reader.dump(), /Cannot receive a state dump/);
    assert(!server.connection.closed);
  }));

Deno.test("one connection too many costs the oldest that does not write", () =>
  withBalancedFds(async () => {
    using run = start({ connectionsMax: 3 });
    using server = await Peer.writing(run.socket, 1n);
    await until("the server writes", () => run.shadow.state.sessionId === 1n);
    const codec = { decode: () => null, fdsFollow: () => false };
    const peers: Peer[] = [];
    for (let i = 0; i < 3; i++) {
      peers.push(new Peer(run.socket));
      closeDump(await peers[i].dump());
    }
    assert.equal(await peers[0].connection.receive(codec), null);
    server.send({ case: "createChannel", value: { channelName } });
    await until("the server is still heard", () => run.shadow.state.channels.has(channelName));
    for (const peer of peers.slice(1)) {
      assert(!peer.connection.closed);
      peer.connection.close();
    }
  }));

Deno.test("a stopped shadow leaves nothing open, whatever was under way", () =>
  withBalancedFds(async () => {
    using run = start();
    using server = await Peer.writing(run.socket, 1n);
    for (let i = 0; i < 500; i++) {
      server.send({ case: "createChannel", value: { channelName: `/${i}` } });
      await server.connection.drained();
    }
    await until("all channels are there", () => run.shadow.state.channels.size === 500);
    using reader = new Peer(run.socket);
    await until("a dump is under way", () => pollSync([reader.connection.socket.number], 0).length > 0);
    for (let i = 0; i < 500; i++) server.send({ case: "removeChannel", value: { channelName: `/${i}` } });
    await until("removals are under way", () => run.shadow.state.channels.size < 500);
    run.shadow.stop();
    run.shadow.stop();
    assert.equal(run.shadow.state.channels.size, 0);
  }));
