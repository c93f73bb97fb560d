/**
 * Hostile peers against real processes: a server and a shadow that serve others meanwhile.
 *
 * Each attack is made from a seed. Whatever it does, both processes live, the bystanders' messages go on without a
 * loss, and when the attackers are gone every fd is closed.
 */

import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { createEventFd } from "../../ffi/eventfd.ts";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { receiveMessage, sendMessage } from "../../ffi/message.ts";
import { createPacketPipe } from "../../ffi/pipe.ts";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { RequestSchema, ShadowEventSchema } from "../../proto/subspace_pb.ts";
import { frame } from "../../wire/frame.ts";
import type { ShadowEventInit } from "../../wire/shadow_link.ts";
import { Random } from "../chaos/random.ts";
import { channelInfo, removeBuffers, sessionsOf, startServer, startShadow, until } from "../deployment.ts";
import { mayRun, Program, uniqueSocket } from "../program.ts";

const ATTACKS = 1000;

const total = (count: number) => new Uint8Array(new Int32Array([count]).buffer);

/** Bytes that mean nothing. */
function noise(random: Random, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, () => random.below(256));
}

const NUMBERS = [-1, 0, 1, 7, 63, 1023, 1024, 65536, 0x7fff_ffff, -0x8000_0000];
const NAMES = [
  "",
  "fuzz",
  "steady",
  "/subspace/Statistics",
  "x".repeat(5000),
  "../../etc",
  "a\0b",
  "mux",
  "%s%n",
];

const STRANGERS = NAMES.filter((name) => name !== "steady");

/** A request with wild values. */
function wildRequest(random: Random): Uint8Array {
  const number = () => random.pick(NUMBERS);
  const name = () => random.pick(NAMES);
  const bool = () => random.below(2) === 1;
  const metadata = {
    channelName: name(),
    sessionId: BigInt(random.below(2 ** 31)),
    slotId: random.below(2 ** 31),
  };
  const request = random.pick([
    () => ({ case: "init", value: { clientName: name() } } as const),
    () => ({
      case: "createPublisher",
      value: {
        channelName: name(),
        numSlots: number(),
        slotSize: number(),
        mux: random.pick(["", name()]),
        vchanId: number(),
        publisherId: number(),
        isReliable: bool(),
        isFixedSize: bool(),
        notifyRetirement: bool(),
        checksumSize: number(),
        metadataSize: number(),
        maxPublishers: number(),
        maxOutstandingSlotLeases: number(),
        subscriberQueueArenaSize: BigInt(random.pick([0, 1, 64000, 2 ** 40])),
      },
    } as const),
    () => ({
      case: "createSubscriber",
      value: {
        // A reliable subscriber that never reads stops its publishers, which is what it is for.
        channelName: random.pick(STRANGERS),
        subscriberId: number(),
        mux: random.pick(["", name()]),
        vchanId: number(),
        maxActiveMessages: number(),
        subscriberQueueSize: number(),
        maxSubscribers: number(),
        isReliable: bool(),
      },
    } as const),
    () => ({ case: "getTriggers", value: { channelName: name() } } as const),
    () => ({ case: "removePublisher", value: { channelName: name(), publisherId: number() } } as const),
    () => ({ case: "removeSubscriber", value: { channelName: name(), subscriberId: number() } } as const),
    () => ({ case: "getChannelInfo", value: { channelName: random.pick(["", name()]) } } as const),
    () => ({ case: "getChannelStats", value: { channelName: random.pick(["", name()]) } } as const),
    () => ({ case: "registerClientBuffer", value: { metadata, hasFd: false, fdIndex: number() } } as const),
    () => ({ case: "unregisterClientBuffer", value: { channelName: name(), bufferIndex: 3 } } as const),
    () => ({ case: "getClientBuffers", value: { channelName: name(), bufferIndex: 3 } } as const),
  ])();
  return toBinary(RequestSchema, create(RequestSchema, { request }));
}

/** An event for a shadow that names channels which do not exist, or fds that are not there. */
function wildEvent(random: Random): Uint8Array {
  const channelName = random.pick(STRANGERS);
  const event = random.pick<NonNullable<ShadowEventInit["event"]>>(
    [
      {
        case: "addPublisher",
        value: { channelName, publisherId: random.pick(NUMBERS), notifyRetirement: true },
      },
      { case: "addSubscriber", value: { channelName, subscriberId: random.pick(NUMBERS) } },
      { case: "removeChannel", value: { channelName } },
      { case: "stateDone", value: {} },
      { case: "registerClientBuffer", value: { hasFd: true } },
    ],
  );
  return toBinary(ShadowEventSchema, create(ShadowEventSchema, { event }));
}

/** Fds of all kinds. */
function someFds(random: Random): Fd[] {
  const [read, write] = createPacketPipe();
  const all = [createEventFd(), createMemory("fuzz", 4096), read, write];
  const kept = all.filter(() => random.below(2) === 1);
  closeAll(all.filter((fd) => !kept.includes(fd)));
  return kept;
}

/** Sends as much as the socket takes. Returns false where the peer has hung up, which is its right. */
function send(socket: Fd, bytes: Uint8Array<ArrayBuffer>, fds: Fd[] = []): boolean {
  try {
    return sendMessage(socket, bytes, fds) > 0;
  } catch {
    return false;
  } finally {
    closeAll(fds);
  }
}

/** One hostile connection. Returns it, for the attacks that consist in staying. */
function attack(random: Random, name: string, wild: (random: Random) => Uint8Array): Fd {
  const socket = connectAbstract(name);
  const kinds: (() => void)[] = [
    () => send(socket, noise(random, 1 + random.below(2000))),
    () => send(socket, new Uint8Array([0x7f, 0xff, 0xff, 0xff, ...noise(random, 100)])),
    () => send(socket, new Uint8Array([0, 0, 0])),
    () => send(socket, new Uint8Array([0, 0, 0, 0])),
    () => send(socket, frame(noise(random, random.below(200)))),
    () => send(socket, frame(wild(random)).slice(0, -1)),
    () => send(socket, frame(wild(random)), someFds(random)),
    () => {
      if (send(socket, frame(wild(random)))) send(socket, total(random.pick(NUMBERS)), someFds(random));
    },
    () => {
      for (let i = 0; i < 50 && send(socket, frame(wild(random))); i++);
    },
    () => {
      // Asks and asks, and reads the answers of a few.
      for (let i = 0; i < 200 && send(socket, frame(wild(random))); i++);
      const buffer = new Uint8Array(10_000);
      try {
        closeAll(receiveMessage(socket, buffer)?.fds ?? []);
      } catch { /* Hung up. */ }
    },
  ];
  random.pick(kinds)();
  return socket;
}

const fdsOf = ({ pid }: Program) => [...Deno.readDirSync(`/proc/${pid}/fd`)].length;

Deno.test({
  name: `${ATTACKS} hostile peers get nowhere, and nobody else notices` +
    (mayRun ? "" : " (skipped: needs permission to run programs)"),
  ignore: !mayRun,
  async fn() {
    const random = new Random(1);
    const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
    await using programs = new AsyncDisposableStack();
    const shadow = programs.use(await startShadow("ours", shadowSocket));
    const server = programs.use(await startServer("ours", socket, [shadowSocket]));
    const servers = [server];
    programs.defer(() => removeBuffers(sessionsOf(servers)));
    const stream = ["steady", "reliable"];
    const subscriber = programs.use(Program.deno("tests/peers/stream.ts", ["subscribe", socket, ...stream]));
    await subscriber.line(/"ready":true/);
    const publisher = programs.use(
      Program.deno("tests/peers/stream.ts", ["publish", socket, ...stream, "1"]),
    );
    const progress = () => JSON.parse(subscriber.lines.at(-1)!);
    const flowing = async () => {
      const before = progress().received ?? 0;
      await subscriber.until("more messages", () => progress().received > before + 5);
    };
    await flowing();
    const before = [fdsOf(server), fdsOf(shadow)];

    const attackers: Fd[] = [];
    for (let i = 0; i < ATTACKS; i++) {
      const target = i % 3 === 2
        ? { name: shadowSocket, wild: wildEvent }
        : { name: socket, wild: wildRequest };
      attackers.push(attack(random, target.name, target.wild));
      if (random.below(4) > 0) attackers.shift()!.close();
      if (i % 50 === 0) await flowing();
    }
    await flowing();
    closeAll(attackers);

    await until(
      "all fds of the attackers are closed",
      () => fdsOf(server) <= before[0] && fdsOf(shadow) <= before[1],
    )
      .catch((error) => {
        throw new Error(`${error}: ${before} before, ${fdsOf(server)},${fdsOf(shadow)} now`);
      });
    await until("their channels are gone", async () => await channelInfo(socket, "fuzz") === undefined);
    await flowing();
    const { lost, torn, connected } = progress();
    assert.deepEqual({ lost, torn, connected }, { lost: 0, torn: 0, connected: true });
    await publisher.closeStdin();
    await publisher.line(/"done":true/);

    // The state in the shadow is worth something still.
    await server.kill();
    const successor = programs.use(await startServer("ours", socket, [shadowSocket]));
    servers.push(successor);
    await successor.line(/Recovered \d+ channels from primary shadow/);
  },
});
