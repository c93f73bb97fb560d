import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { createEventFd } from "../../ffi/eventfd.ts";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { receiveMessage, sendMessage } from "../../ffi/message.ts";
import { pollSync } from "../../ffi/poll.ts";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { ShadowEventSchema } from "../../proto/subspace_pb.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { frame } from "../../wire/frame.ts";
import { closeDump } from "../../wire/state_dump.ts";
import { Random } from "../chaos/random.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { type EventInit, fdsFor, Peer, until } from "./peer.ts";

const channelName = "/a";

/** The frame of an event, without its fds. */
function framed(init: EventInit): Uint8Array<ArrayBuffer> {
  return frame(toBinary(ShadowEventSchema, create(ShadowEventSchema, { event: init })));
}

function total(count: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Int32Array([count]).buffer);
}

/** Sends bytes with so many eventfds. A shadow that has hung up already is fine. */
function send(socket: Fd, bytes: Uint8Array<ArrayBuffer>, fdCount = 0): void {
  const fds = Array.from({ length: fdCount }, () => createEventFd());
  try {
    sendMessage(socket, bytes, fds);
  } catch (error) {
    assert.match((error as Error).message, /EPIPE|ECONNRESET/);
  } finally {
    closeAll(fds);
  }
}

/** Whether the shadow has closed the connection. Takes whatever it said before. */
function hungUp(socket: Fd): boolean {
  const into = new Uint8Array(4096);
  try {
    while (pollSync([socket.number], 0).length > 0) {
      const received = receiveMessage(socket, into);
      if (received === null) return false;
      closeAll(received.fds);
      if (received.byteLength === 0) return true;
    }
    return false;
  } catch {
    return true;
  }
}

/** Runs an attack beside a server that goes on all the time, and one that comes after it. */
function attacked(attack: (socket: string, shadow: Shadow) => Promise<void>): () => Promise<void> {
  return () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("shadow");
      using shadow = Shadow.start({ socket });
      using server = await Peer.writing(socket, 1n);
      server.send({ case: "createChannel", value: { channelName } });
      await until("the server writes", () => shadow.state.channels.size === 1);
      await attack(socket, shadow);
      server.send({ case: "createChannel", value: { channelName: "/after" } });
      await until("the server is still heard", () => shadow.state.channels.has("/after"));
      assert.equal(shadow.state.sessionId, 1n);
      using reader = new Peer(socket);
      const dump = await reader.dump();
      assert.deepEqual([...dump.channels.keys()], [channelName, "/after"]);
      closeDump(dump);
    });
}

const init = framed({ case: "init", value: { sessionId: 2n } });
const createChannel = framed({ case: "createChannel", value: { channelName: "/evil" } });

const attacks: [string, (socket: Fd) => void][] = [
  ["a length of 2 GiB", (socket) => send(socket, new Uint8Array([0x7f, 0xff, 0xff, 0xff, 1, 2, 3]))],
  ["a length of 4 GiB", (socket) => send(socket, new Uint8Array([0xff, 0xff, 0xff, 0xff]))],
  [
    "bytes that are no event",
    (socket) => send(socket, frame(new Uint8Array([0xff, 0xff, 0xff, 0xff, 0xff]))),
  ],
  ["an empty frame", (socket) => send(socket, frame(new Uint8Array()))],
  ["another server's init", (socket) => {
    send(socket, init);
    send(socket, total(1), 1);
  }],
  [
    "an event before init",
    (socket) => send(socket, framed({ case: "removeChannel", value: { channelName } })),
  ],
  ["an announced fd that is missing", (socket) => {
    send(socket, init);
    send(socket, total(1));
  }],
  ["no fds where some are needed", (socket) => {
    send(socket, init);
    send(socket, total(0));
  }],
  ["too many fds", (socket) => {
    send(socket, init);
    send(socket, total(3), 3);
  }],
  ["more fds than announced", (socket) => {
    send(socket, init);
    send(socket, total(1), 5);
  }],
  ["a negative number of fds", (socket) => {
    send(socket, init);
    send(socket, total(-1), 1);
  }],
  ["two billion fds", (socket) => {
    send(socket, init);
    send(socket, total(0x7fff_ffff), 1);
  }],
  ["fds inside a message", (socket) => send(socket, init, 2)],
  ["fds in front of a message", (socket) => send(socket, init.slice(0, 1), 2) ?? send(socket, init.slice(1))],
  ["fds after an event that has none", (socket) => {
    send(socket, framed({ case: "removeChannel", value: { channelName } }));
    send(socket, total(2), 2);
  }],
];

for (const [what, attack] of attacks) {
  Deno.test(
    `${what} costs whoever sends it the connection, and nobody else anything`,
    attacked(async (name) => {
      using socket = connectAbstract(name);
      attack(socket);
      await until("the shadow hangs up", () => hungUp(socket));
    }),
  );
}

Deno.test(
  "a stream that ends anywhere inside an event leaves nothing behind",
  attacked(async (name, shadow) => {
    const connections = shadow.connections;
    for (let length = 0; length <= createChannel.length; length++) {
      using socket = connectAbstract(name);
      if (length > 0) send(socket, createChannel.slice(0, length), length % 3);
    }
    for (let length = 1; length <= 4; length++) {
      using socket = connectAbstract(name);
      send(socket, createChannel);
      send(socket, total(2).slice(0, length), 2);
    }
    await until("all are gone", () => shadow.connections === connections);
  }),
);

Deno.test(
  "random bytes get nowhere",
  attacked(async (name, shadow) => {
    const random = new Random(20261121);
    const connections = shadow.connections;
    for (let round = 0; round < 300; round++) {
      using socket = connectAbstract(name);
      const bytes = Uint8Array.from({ length: 1 + random.below(200) }, () => random.below(256));
      // Short lengths get past the framing now and then.
      if (round % 2 === 0) bytes.set([0, 0, 0, random.below(bytes.length)].slice(0, bytes.length));
      send(socket, bytes, random.below(4));
    }
    await until("all are gone", () => shadow.connections === connections);
  }),
);

Deno.test(
  "flipped bits in a writer's events cost its connection at most",
  () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("shadow");
      using shadow = Shadow.start({ socket });
      const random = new Random(7);
      for (let round = 0; round < 200; round++) {
        const bytes = createChannel.slice();
        bytes[4 + random.below(bytes.length - 4)] ^= 1 << random.below(8);
        {
          using peer = connectAbstract(socket);
          send(peer, init);
          send(peer, total(1), 1);
          send(peer, bytes);
          send(peer, total(2), 2);
        }
        await until("it is gone", () => shadow.connections === 0);
      }
      using server = await Peer.writing(socket, 9n);
      await until("a server can write", () => shadow.state.sessionId === 9n);
      assert(!server.connection.closed);
    }),
);

Deno.test("a server that floods a shadow keeps nobody from reading", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("shadow");
    using shadow = Shadow.start({ socket });
    using server = await Peer.writing(socket, 1n);
    server.send({ case: "createChannel", value: { channelName } });
    let flooding = true;
    const flood = (async () => {
      while (flooding && !server.connection.closed) {
        for (let i = 0; i < 1000; i++) {
          server.send({ case: "removeChannel", value: { channelName: "/none" } });
        }
        await server.connection.drained();
      }
    })();
    await until("the flood has come", () => shadow.state.channels.size === 1);
    for (let i = 0; i < 5; i++) {
      using reader = new Peer(socket);
      const dump = await reader.dump();
      assert.equal(dump.channels.size, 1);
      closeDump(dump);
    }
    flooding = false;
    await flood;
  }));

Deno.test("whatever the order of events, a dump is what they add up to", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("shadow");
    using _shadow = Shadow.start({ socket });
    using server = await Peer.writing(socket, 1n);
    const random = new Random(42);
    /** Name to metadata, publishers and subscribers, each with what is expected of it. */
    const model = new Map<string, { slots: number; pubs: Map<number, bigint>; subs: Map<number, bigint> }>();
    let step = 0;
    const kinds: ((name: string, id: number) => EventInit)[] = [
      (name) => {
        const channel = model.get(name) ?? { slots: 0, pubs: new Map(), subs: new Map() };
        model.set(name, { ...channel, slots: step });
        return { case: "createChannel", value: { channelName: name, numSlots: step } };
      },
      (name, id) => {
        model.get(name)?.pubs.set(id, BigInt(step));
        const value = {
          channelName: name,
          publisherId: id,
          processId: BigInt(step),
          notifyRetirement: id === 0,
        };
        return { case: "addPublisher", value };
      },
      (name, id) => {
        model.get(name)?.subs.set(id, BigInt(step));
        return {
          case: "addSubscriber",
          value: { channelName: name, subscriberId: id, processId: BigInt(step) },
        };
      },
      (name, id) => {
        model.get(name)?.pubs.delete(id);
        return { case: "removePublisher", value: { channelName: name, publisherId: id } };
      },
      (name, id) => {
        model.get(name)?.subs.delete(id);
        return { case: "removeSubscriber", value: { channelName: name, subscriberId: id } };
      },
      (name) => {
        if (random.below(8) > 0) return { case: "updateChannelOptions", value: { channelName: name } };
        model.delete(name);
        return { case: "removeChannel", value: { channelName: name } };
      },
    ];
    for (step = 1; step <= 3000; step++) {
      const make = kinds[random.below(kinds.length)];
      const sent = make(`/${random.below(6)}`, random.below(4));
      const fds = fdsFor(sent);
      server.send(sent, fds);
      closeAll(fds);
      if (step % 100 !== 0) continue;
      // What is in the socket when a reader comes is in its dump.
      await server.connection.drained();
      using reader = new Peer(socket);
      const dump = await reader.dump();
      const seen = [...dump.channels].map(([name, { info, publishers, subscribers }]) =>
        [name, {
          slots: info.numSlots,
          pubs: new Map([...publishers].map(([id, { info }]) => [id, info.processId])),
          subs: new Map([...subscribers].map(([id, { info }]) => [id, info.processId])),
        }] as const
      );
      assert.deepEqual(new Map(seen), model, `after event ${step}: ${sent.case}`);
      closeDump(dump);
    }
  }));
