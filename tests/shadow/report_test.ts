/** What a shadow of ours is asked on its second socket: what it counts, and to go back. */

import assert from "node:assert/strict";
import type { Fd } from "../../ffi/fd.ts";
import type { ShadowEvent, ShadowReport } from "../../proto/subspace_pb.ts";
import { Shadow, type ShadowOptions } from "../../shadow/shadow.ts";
import { socketPair } from "../../ffi/unix_socket.ts";
import {
  closeBriefDump,
  receiveBriefDumpSoFar,
  type SeenSoFar,
  type SeenState,
} from "../../wire/brief_dump.ts";
import { Connection } from "../../wire/connection.ts";
import { receiveHeader } from "../../wire/state_dump.ts";
import { receiveEvent, sendEvent } from "../../wire/shadow_link.ts";
import { replicationSocket } from "../../wire/position.ts";
import { withBalancedFds } from "../open_fds.ts";
import { asOtherUser, mayBeOthers, OTHER_UID } from "../other_user.ts";
import { uniqueSocket } from "../program.ts";
import { type EventInit, fdsFor, Peer, until } from "./peer.ts";

/** Asks one thing. */
async function ask(socket: string, question: EventInit, connect = () => new Peer(replicationSocket(socket))) {
  using peer = connect();
  const header = await receiveHeader(peer.connection);
  peer.send(question);
  const incoming = await receiveEvent(peer.connection);
  return { ...header, event: incoming?.message.event ?? { case: undefined } };
}

async function reportOf(socket: string): Promise<ShadowReport> {
  const { event } = await ask(socket, { case: "requestReport", value: {} });
  assert.equal(event.case, "report");
  return event.value as ShadowReport;
}

async function errorOf(socket: string, what: "rollback" | "forget"): Promise<string> {
  const { event } = await ask(socket, { case: what, value: {} });
  return answer(event);
}

function answer(event: ShadowEvent["event"]): string {
  assert.equal(event.case, "answer");
  return (event.value as { error: string }).error;
}

function counted({ counters }: ShadowReport, name: string, of = ""): number {
  return Number(counters.find((it) => it.name === name && it.of === of)?.value ?? -1);
}

const test = (
  name: string,
  run: (shadow: Shadow, socket: string) => Promise<void>,
  options: Partial<ShadowOptions> = {},
) =>
  Deno.test(name, () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("shadow");
      using shadow = Shadow.start({ socket, ...options });
      await run(shadow, socket);
    }));

/** A server that sends channels, says that this is all, and stays. */
async function serve(socket: string, sessionId: bigint, channels: readonly string[]): Promise<Peer> {
  const peer = new Peer(replicationSocket(socket));
  await receiveHeader(peer.connection);
  peer.send({
    case: "init",
    value: { sessionId, generation: sessionId, syncReason: "new", serverSocket: "/the/server" },
  });
  for (const channelName of channels) peer.send({ case: "createChannel", value: { channelName } });
  peer.send({ case: "stateComplete", value: {} });
  return peer;
}

test(
  "a shadow says what it counts, where its server listens, and why it got everything",
  async (shadow, socket) => {
    using _server = await serve(socket, 5n, ["/a"]);
    await until("the state is complete", () => shadow.position.complete);
    const report = await reportOf(socket);
    assert.deepEqual([report.serverSocket, report.hasServer, report.lastFullSync, report.previousChannels], [
      "/the/server",
      true,
      "new",
      0,
    ]);
    assert.deepEqual(
      ["connections", "events_total", "held_fds"].map((name) => counted(report, name)),
      [2, 3, 0],
    );
    assert.equal(counted(report, "full_syncs_total", "new"), 1);
    assert(counted(report, "fds") > 2 && counted(report, "fds_max") >= counted(report, "fds"));
  },
);

test("what a server gives as reason is believed only if it is one", async (shadow, socket) => {
  using server = new Peer(replicationSocket(socket));
  await receiveHeader(server.connection);
  server.send({ case: "init", value: { sessionId: 1n, generation: 1n, syncReason: "x".repeat(1000) } });
  await until("it has begun", () => shadow.state.sessionId === 1n);
  assert.equal((await reportOf(socket)).lastFullSync, "unknown");
});

test("a server that still sends its state cannot say that it goes on", async (shadow, socket) => {
  using server = new Peer(replicationSocket(socket));
  await receiveHeader(server.connection);
  server.send({ case: "init", value: { sessionId: 5n, generation: 5n } });
  server.send({ case: "createChannel", value: { channelName: "/a" } });
  server.send({ case: "resume", value: { generation: 9n } });
  await until("it is refused", () => shadow.counters.refusals.of("protocol") === 1);
  assert(!shadow.position.complete);
});

test(
  "a rollback puts what is kept aside in the place of the newest state, and undoes itself",
  async (shadow, socket) => {
    assert.equal(await errorOf(socket, "rollback"), "nothing is kept aside");
    using old = await serve(socket, 5n, ["/old"]);
    await until("the first is there", () => shadow.position.complete);
    old.connection.close();
    using next = await serve(socket, 6n, ["/new"]);
    await until("the second took its place", () => shadow.state.sessionId === 6n);
    assert.match(await errorOf(socket, "rollback"), /^a server is connected/);
    next.connection.close();
    assert.equal(await errorOf(socket, "rollback"), "");
    assert.deepEqual([shadow.state.sessionId, [...shadow.state.channels.keys()]], [5n, ["/old"]]);
    assert.equal(shadow.previous?.sessionId, 6n);
    assert(shadow.position.complete && shadow.position.generation > 6n);
    assert.equal(await errorOf(socket, "rollback"), "");
    assert.equal(shadow.state.sessionId, 6n);
    assert.equal((await reportOf(socket)).previousSessionId, 5n);
    assert.equal(await errorOf(socket, "forget"), "");
    assert.equal(shadow.previous, null);
    assert.equal(await errorOf(socket, "forget"), "nothing is kept aside");
  },
);

/** A state in words: channels with their users, and which files their control blocks and buffers are. */
function wordsOf({ sessionId, scb, channels }: SeenState): unknown {
  const file = (fd: Fd | null) => fd === null ? null : String(fd.stat().inode);
  return [
    sessionId,
    file(scb),
    [...channels.values()].map(({ info, ccb, bcb, publishers, subscribers, clientBuffers }) => [
      info,
      file(ccb),
      file(bcb),
      [...publishers].map(([id, { info }]) => [id, info]),
      [...subscribers].map(([id, { info }]) => [id, info]),
      [...clientBuffers].map(([key, { metadata, fd }]) => [key, metadata, file(fd)]),
    ]),
  ];
}

async function inBrief(socket: string): Promise<SeenSoFar & Disposable> {
  using peer = new Peer(replicationSocket(socket));
  await receiveHeader(peer.connection);
  peer.send({ case: "requestState", value: { brief: true } });
  const seen = await receiveBriefDumpSoFar(peer.connection);
  return { ...seen, [Symbol.dispose]: () => closeBriefDump(seen.dump) };
}

test("in brief the state is the same, without the fds of users", async (shadow, socket) => {
  {
    using nothing = await inBrief(socket);
    assert.deepEqual([nothing.dump.sessionId, nothing.dump.scb, nothing.failure], [0n, null, null]);
  }
  using server = await serve(socket, 5n, ["/a", "/b"]);
  const channelName = "/a";
  server.send({ case: "addPublisher", value: { channelName, publisherId: 3, notifyRetirement: true } });
  server.send({ case: "addSubscriber", value: { channelName, subscriberId: 1, isReliable: true } });
  server.send({
    case: "registerClientBuffer",
    value: { metadata: { channelName, slotId: 1 }, hasFd: true },
  });
  server.send({ case: "registerClientBuffer", value: { metadata: { channelName, slotId: 2 } } });
  await until("all is there", () => shadow.state.channels.get("/a")?.clientBuffers.size === 2);
  using seen = await inBrief(socket);
  assert.deepEqual([seen.failure, seen.numChannels], [null, 2]);
  assert.deepEqual(wordsOf(seen.dump), wordsOf(shadow.state));
});

/** Whoever receives a state, and what is sent to it. */
class Receiver implements Disposable {
  readonly #sender: Connection;
  readonly connection: Connection;

  constructor() {
    const [here, there] = socketPair();
    this.#sender = new Connection(here);
    this.connection = new Connection(there);
  }

  send(event: EventInit): void {
    const fds = fdsFor(event);
    sendEvent(this.#sender, { event }, fds);
    for (const fd of fds) fd.close();
  }

  [Symbol.dispose](): void {
    this.#sender.close();
    this.connection.close();
  }
}

Deno.test("a state in brief that breaks off is there as far as it came, and its fds are closed", () =>
  withBalancedFds(async () => {
    using receiver = new Receiver();
    receiver.send({ case: "stateDump", value: { sessionId: 5n, numChannels: 2 } });
    receiver.send({ case: "briefChannel", value: { channel: { channelName: "/a" } } });
    receiver.send({ case: "createChannel", value: { channelName: "/b" } });
    const { dump, numChannels, failure } = await receiveBriefDumpSoFar(receiver.connection);
    assert.deepEqual([[...dump.channels.keys()], numChannels], [["/a"], 2]);
    assert.match(failure!.message, /^Cannot accept createChannel in a state dump$/);
    closeBriefDump(dump);
  }));

Deno.test("of what a state in brief says twice nothing stays open", () =>
  withBalancedFds(async () => {
    using receiver = new Receiver();
    const metadata = { channelName: "/a", slotId: 1 };
    receiver.send({ case: "stateDump", value: { sessionId: 5n, numChannels: 2 } });
    receiver.send({ case: "briefChannel", value: { channel: { channelName: "/a" } } });
    for (let i = 0; i < 2; i++) {
      receiver.send({ case: "registerClientBuffer", value: { metadata, hasFd: true } });
    }
    receiver.send({ case: "briefChannel", value: { channel: { channelName: "/a" } } });
    receiver.send({ case: "stateDone", value: {} });
    const { dump, failure } = await receiveBriefDumpSoFar(receiver.connection);
    assert.match(failure!.message, /^Cannot accept channel \/a twice in a state dump$/);
    assert.equal(dump.channels.get("/a")!.clientBuffers.size, 1);
    closeBriefDump(dump);
  }));

Deno.test("a rollback outlives the shadow that leaves its state with the service manager", () =>
  withBalancedFds(async () => {
    const socket = uniqueSocket("shadow"), fds = new Map<string, Fd>();
    const keeper = {
      keep(name: string, fd: Fd) {
        if (!fds.has(name)) fds.set(name, fd.duplicate());
        return true;
      },
      forget(name: string) {
        fds.get(name)?.close();
        fds.delete(name);
        return true;
      },
    };
    {
      using shadow = Shadow.start({ socket, keeper });
      for (const [session, channel] of [[5n, "/old"], [6n, "/new"]] as const) {
        using _server = await serve(socket, session, [channel]);
        await until(`session ${session} is there`, () => shadow.state.channels.has(channel));
        await until(`session ${session} is whole`, () => shadow.position.complete);
      }
      await until("its server is gone", () => shadow.connections === 0);
      assert.equal(await errorOf(socket, "rollback"), "");
    }
    const kept = new Map(fds);
    fds.clear();
    using shadow = Shadow.start({ socket, keeper, kept });
    assert.deepEqual([shadow.state.sessionId, shadow.previous?.sessionId], [5n, 6n]);
    for (const fd of fds.values()) fd.close();
  }));

test(
  "on the reference's socket nobody asks: it ends the connection as any other writer would",
  async (shadow, socket) => {
    using peer = new Peer(socket);
    await peer.dump();
    peer.send({ case: "rollback", value: {} });
    await until("it is refused", () => shadow.counters.refusals.of("protocol") === 1);
  },
);

Deno.test({
  name: "who may read only cannot roll back (needs root)",
  ignore: !mayBeOthers,
  fn: () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("shadow");
      using shadow = Shadow.start({ socket, readers: { users: [OTHER_UID] } });
      for (const what of ["rollback", "forget"] as const) {
        const { event } = await ask(
          socket,
          { case: what, value: {} },
          () => asOtherUser(() => new Peer(replicationSocket(socket))),
        );
        assert.match(answer(event), /^uid 54321, .* may read only; name it in --allow_server_user$/);
      }
      assert.equal(shadow.counters.refusals.of("write_access"), 2);
    }),
});
