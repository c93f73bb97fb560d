/**
 * What a real shadow sent, with made-up shared memory behind it.
 *
 * Recorded from the C++ 3.0.2 server and shadow: a reliable channel with a retirement pipe, one with every limit and
 * option, a multiplexer with two virtual channels, a placeholder, split buffers.
 */

import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import type { Fd } from "../../ffi/fd.ts";
import { createEventFd } from "../../ffi/eventfd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { socketPair } from "../../ffi/unix_socket.ts";
import { type ShadowEvent, ShadowEventSchema } from "../../proto/subspace_pb.ts";
import { unlinkBuffers } from "../../shm/buffer_names.ts";
import { ControlBlocks } from "../../shm/control_blocks.ts";
import { PublishingEnd, type PublishingEndOptions } from "../../shm/publishing.ts";
import { ReadingEnd, type ReadingEndOptions } from "../../shm/reading.ts";
import { Registry } from "../../shm/registry.ts";
import { SystemControlBlock } from "../../shm/system_control_block.ts";
import { Connection } from "../../wire/connection.ts";
import { fdCount, sendEvent } from "../../wire/shadow_link.ts";
import { receiveDump, type StateDump } from "../../wire/state_dump.ts";
import recorded from "./recorded_dump.json" with { type: "json" };

/** The pid of the server in the recording. */
export const SERVER_PID = 13630;

/** Added to a recorded pid: no process has such a one. */
export const GONE_PID = 1_000_000_000;

const gone = ({ processId }: { processId: bigint }) => processId + BigInt(GONE_PID);

/** A shadow's state, to be sent as often as one likes. */
export class RecordedShadow implements Disposable {
  readonly events: readonly ShadowEvent[];
  readonly scb = SystemControlBlock.create();
  /** By channel id. */
  readonly #blocks = new Map<number, ControlBlocks>();
  readonly #resources = new DisposableStack();
  readonly #event = createEventFd();
  readonly #part = createMemory("part", 4096);
  /** Of the message buffers. */
  readonly sessionId = crypto.getRandomValues(new BigUint64Array(1))[0] >> 1n;

  constructor() {
    this.events = (recorded as JsonValue[]).map((event) => fromJson(ShadowEventSchema, event));
    for (const { event } of this.events) {
      if (event.case === "createChannel" && event.value.mux === "") {
        const { channelName, channelId, numSlots, subscriberQueueArenaSize } = event.value;
        const shape = { channelName, numSlots, queueArenaBytes: Number(subscriberQueueArenaSize) };
        const blocks = ControlBlocks.create(shape, this.scb.counters(channelId));
        this.#blocks.set(channelId, blocks);
      }
    }
    for (const { event } of this.events) {
      if (event.case === "addPublisher") {
        this.scb.counters(this.idOf(event.value.channelName)).countPublisher(1, event.value.isReliable);
      } else if (event.case === "addSubscriber") {
        this.scb.counters(this.idOf(event.value.channelName)).countSubscriber(1, event.value.isReliable);
      }
    }
  }

  /**
   * The events, of the session that the message buffers are named after, so that messages are found; and of processes
   * that are surely gone, whatever runs on this machine.
   */
  get live(): ShadowEvent[] {
    const { sessionId } = this;
    return this.events.map(({ event, ...message }) => {
      switch (event.case) {
        case "stateDump":
          return { ...message, event: { ...event, value: { ...event.value, sessionId } } };
        case "addPublisher":
          return { ...message, event: { ...event, value: { ...event.value, processId: gone(event.value) } } };
        case "addSubscriber":
          return { ...message, event: { ...event, value: { ...event.value, processId: gone(event.value) } } };
        default:
          return { ...message, event };
      }
    });
  }

  idOf(channel: string): number {
    for (const { event } of this.events) {
      if (event.case === "createChannel" && event.value.channelName === channel) return event.value.channelId;
    }
    throw new Error(`no channel ${channel} was recorded`);
  }

  blocks(channel: string): ControlBlocks {
    return this.#blocks.get(this.idOf(channel))!;
  }

  publisher(channel: string, id: number, options: Partial<PublishingEndOptions> = {}): PublishingEnd {
    const publisher = new PublishingEnd({ ...this.#end(channel, id), slotBytes: 256, ...options });
    return this.#resources.use(publisher);
  }

  subscriber(channel: string, id: number, options: Partial<ReadingEndOptions> = {}): ReadingEnd {
    new Registry(this.blocks(channel)).addSubscriber(id, options.vchanId ?? -1, true);
    return this.#resources.use(new ReadingEnd({ ...this.#end(channel, id), ...options }));
  }

  #end(channel: string, id: number) {
    const blocks = this.blocks(channel);
    const { channelName: resolvedName } = blocks.shape;
    this.#resources.defer(() => unlinkBuffers(this.sessionId, resolvedName, blocks.numBuffers));
    return { sessionId: this.sessionId, resolvedName, blocks, id };
  }

  /** Sends a dump. */
  send(connection: Connection, events = this.events): void {
    for (const message of events) {
      sendEvent(connection, message, this.#fdsOf(message));
    }
  }

  #fdsOf(message: ShadowEvent): Fd[] {
    const { event } = message;
    if (event.case === "stateDump") return [this.scb.fd];
    if (event.case === "createChannel") {
      const { ccbFd, bcbFd } = this.#blocks.get(event.value.channelId)!;
      return [ccbFd, bcbFd];
    }
    const fd = event.case === "registerClientBuffer" ? this.#part : this.#event;
    return Array.from({ length: fdCount(message) }, () => fd);
  }

  /** What arrives at the other end. */
  async dump(): Promise<StateDump> {
    const [here, there] = socketPair();
    using sender = new Connection(here);
    using receiver = new Connection(there);
    this.send(sender);
    return await receiveDump(receiver);
  }

  [Symbol.dispose](): void {
    this.#resources.dispose();
    for (const blocks of this.#blocks.values()) blocks[Symbol.dispose]();
    this.scb[Symbol.dispose]();
    this.#event.close();
    this.#part.close();
  }
}
