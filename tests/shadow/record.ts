/**
 * Records what the reference's server tells a shadow, and what its shadow makes of it, into `recorded/`.
 *
 * SUBSPACE_CPP_BIN=folder deno run -A tests/shadow/record.ts
 */

import { fromBinary } from "@bufbuild/protobuf";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { accept, connectAbstract, listenAbstract } from "../../ffi/unix_socket.ts";
import { ShadowEventSchema } from "../../proto/subspace_pb.ts";
import { Connection } from "../../wire/connection.ts";
import { startServer, startShadow } from "../deployment.ts";
import { cppFolder, uniqueSocket } from "../program.ts";
import { RawClient } from "../raw_client.ts";
import { removeTraces } from "../traces.ts";
import { until } from "./peer.ts";
import { kindOf, rawEventCodec, type RecordedEvent, type Recording } from "./recording.ts";

/** Writes down what goes by, between a server and a shadow. */
class Tap implements Disposable {
  readonly socket = uniqueSocket("tap");
  readonly events: RecordedEvent[] = [];
  readonly #listener = listenAbstract(this.socket);
  readonly #open = new Set<Connection>();

  constructor(readonly shadow: string) {
    void this.#serve();
  }

  async #serve(): Promise<void> {
    while (!this.#listener.closed) {
      const socket = accept(this.#listener);
      if (socket === null) await pause(5);
      else {
        const [server, shadow] = [new Connection(socket), new Connection(connectAbstract(this.shadow))];
        void this.#pass(server, shadow, this.events);
        void this.#pass(shadow, server, []);
      }
    }
  }

  async #pass(from: Connection, to: Connection, events: RecordedEvent[]): Promise<void> {
    this.#open.add(from);
    for (let next = await take(from, events); next !== null; next = await take(from, events)) {
      to.send(next.bytes, next.fds.length === 0 ? undefined : next.fds);
      closeAll(next.fds);
    }
    to.close();
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    for (const connection of this.#open) connection.close();
  }
}

async function take(
  from: Connection,
  events: RecordedEvent[],
): Promise<{ bytes: Uint8Array; fds: Fd[] } | null> {
  const incoming = await from.receive(rawEventCodec);
  if (incoming === null) return null;
  const { message: { bytes }, fds } = incoming;
  events.push({ bytes: bytes.toHex(), ...(fds.length === 0 ? {} : { fds: fds.map(kindOf) }) });
  return { bytes, fds };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

interface Stage {
  readonly client: RawClient;
  connect(): RawClient;
  /** Kills the server and starts it again. */
  restart(): Promise<void>;
}

const stories: Record<string, [story: string, tell: (stage: Stage) => Promise<void> | void]> = {
  fresh: ["A server starts.", () => {}],
  placeholder: ["Somebody subscribes to a channel that nobody publishes.", async ({ client }) => {
    await client.subscriber("/a", { type: new TextEncoder().encode("T") });
  }],
  remap: [
    "A placeholder gets its first publisher, which wants retirement notifications.",
    async ({ client }) => {
      await client.subscriber("/a");
      await client.publisher("/a", { notifyRetirement: true, isReliable: true });
    },
  ],
  reload: ["A subscriber asks again with its id.", async ({ client }) => {
    await client.publisher("/a");
    await client.subscriber("/a", { isReliable: true, maxActiveMessages: 2 });
    await client.subscriber("/a", { subscriberId: 1, isReliable: true, maxActiveMessages: 2 });
  }],
  queues: ["A channel with a queue arena and limits.", async ({ client }) => {
    const limits = { maxPublishers: 3, maxOutstandingSlotLeases: 2, subscriberQueueArenaSize: 64000n };
    await client.publisher("/a", { numSlots: 16, ...limits });
    await client.subscriber("/a", { subscriberQueueSize: 4, maxSubscribers: 5 });
  }],
  sizes: ["Checksum, metadata and a type that comes late.", async ({ client }) => {
    await client.subscriber("/a");
    await client.publisher("/a", {
      checksumSize: 20,
      metadataSize: 16,
      type: new TextEncoder().encode("late"),
    });
  }],
  virtual: [
    "Two virtual channels on a multiplexer, and a subscriber of the multiplexer itself.",
    async ({ client }) => {
      await client.publisher("/v1", { mux: "/mux", numSlots: 10 });
      await client.publisher("/v2", { mux: "/mux", numSlots: 10, vchanId: 7 });
      await client.subscriber("/mux");
      await client.subscriber("/v2", { mux: "/mux", vchanId: 7 });
    },
  ],
  split: [
    "Split buffers: parts are registered, with and without fds, and one buffer is unregistered.",
    async ({ client }) => {
      const sessionId = await client.sessionId();
      for (const name of ["/a", "/b"]) {
        await client.publisher(name, { useSplitBuffers: true });
        using memory = createMemory("prefix", 4096);
        await client.register(name, { sessionId, slotId: 0, isPrefix: true }, memory);
        for (let slotId = 0; slotId < 4; slotId++) {
          await client.register(name, { sessionId, slotId, isPrefix: false });
        }
      }
      client.unregister("/b", sessionId);
      await client.subscriber("/b");
    },
  ],
  removal: ["Users and a channel are removed on request.", async ({ client }) => {
    await client.publisher("/a");
    await client.subscriber("/a");
    await client.subscriber("/a");
    await client.publisher("/b");
    await client.remove("subscriber", "/a", 1);
    await client.remove("publisher", "/b", 0);
  }],
  disconnect: [
    "A client goes; one of its channels has other users, one has none (section 9.2, 5).",
    async (stage) => {
      await stage.client.publisher("/a");
      const leaving = stage.connect();
      await leaving.subscriber("/a");
      await leaving.publisher("/b");
      leaving[Symbol.dispose]();
    },
  ],
  reuse: [
    "The id of a user whose client has gone is given to another user (section 9.2, 5).",
    async (stage) => {
      await stage.client.publisher("/a");
      const leaving = stage.connect();
      await leaving.subscriber("/a", { processId: 1n });
      leaving[Symbol.dispose]();
      await pause(200);
      await stage.client.subscriber("/a", { processId: 2n });
    },
  ],
  restart: ["The server is killed, recovers, and says everything again.", async (stage) => {
    await stage.client.publisher("/a", { notifyRetirement: true });
    await stage.client.subscriber("/a");
    await stage.client.publisher("/v1", { mux: "/mux", numSlots: 10 });
    await stage.restart();
  }],
};

async function record(story: string, tell: (stage: Stage) => Promise<void> | void): Promise<Recording> {
  const [socket, shadowSocket] = [uniqueSocket("server"), uniqueSocket("shadow")];
  await using programs = new AsyncDisposableStack();
  const sessions = new Set<bigint>();
  programs.defer(() => sessions.forEach(removeTraces));
  programs.use(await startShadow("cpp", shadowSocket));
  using tap = new Tap(shadowSocket);
  // The server's own channels come up after it listens.
  const settled = async (publishers: number) => {
    const own = () =>
      tap.events.filter(({ bytes }) => bytes.startsWith("22") && bytes.includes("2f7375627370616365"));
    await until("the server's own channels are there", () => own().length >= publishers);
    await pause(300);
  };
  let server = programs.use(await startServer("cpp", socket, [tap.socket]));
  await settled(2);
  using clients = new DisposableStack();
  const connect = () => clients.use(new RawClient(socket));
  const client = connect();
  await tell({
    client,
    connect,
    restart: async () => {
      await server.kill();
      server = programs.use(await startServer("cpp", socket, [tap.socket]));
      await settled(6);
    },
  });
  await pause(300);
  for (const { bytes } of tap.events) {
    const { event } = fromBinary(ShadowEventSchema, Uint8Array.fromHex(bytes));
    if (event.case === "init") sessions.add(event.value.sessionId);
  }
  const dump: RecordedEvent[] = [];
  using reader = new Connection(connectAbstract(shadowSocket));
  while (dump.at(-1)?.bytes !== "4a00") {
    const next = await take(reader, dump);
    if (next === null) throw new Error("the shadow hung up");
    closeAll(next.fds);
  }
  return { story, events: [...tap.events], dump };
}

if (cppFolder === undefined) {
  throw new Error("Cannot record: set SUBSPACE_CPP_BIN to the folder of the C++ binaries");
}
for (const [name, [story, tell]] of Object.entries(stories)) {
  const recording = await record(story, tell);
  const path = new URL(`recorded/${name}.json`, import.meta.url);
  await Deno.writeTextFile(path, JSON.stringify(recording, null, 2) + "\n");
  console.log(`${name}: ${recording.events.length} events, ${recording.dump.length} in the dump`);
}
