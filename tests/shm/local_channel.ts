/** A channel without a server, for tests: control blocks of its own, and users registered by hand. */

import { createEventFd } from "../../ffi/eventfd.ts";
import type { Fd } from "../../ffi/fd.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { unlinkBuffers } from "../../shm/buffer_names.ts";
import { ControlBlocks } from "../../shm/control_blocks.ts";
import { type ControlBlockOffsets, controlBlockOffsets } from "../../shm/layout.ts";
import type { Trigger } from "../../shm/doorbell.ts";
import { PublishingEnd, type PublishingEndOptions } from "../../shm/publishing.ts";
import { ReadingEnd, type ReadingEndOptions } from "../../shm/reading.ts";
import { Registry } from "../../shm/registry.ts";
import { type ChannelCounters, SystemControlBlock } from "../../shm/system_control_block.ts";

export interface LocalChannelOptions {
  numSlots?: number;
  slotBytes?: number;
  queueArenaBytes?: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class LocalChannel implements Disposable {
  readonly sessionId = crypto.getRandomValues(new BigUint64Array(1))[0] >> 1n;
  readonly resolvedName = "/test/channel";
  readonly scb = SystemControlBlock.create();
  readonly counters: ChannelCounters = this.scb.counters(0);
  readonly blocks: ControlBlocks;
  readonly registry: Registry;
  readonly slotBytes: number;
  readonly #triggers: Fd[] = [];

  constructor({ numSlots = 8, slotBytes = 256, queueArenaBytes = 0 }: LocalChannelOptions = {}) {
    this.slotBytes = slotBytes;
    this.blocks = ControlBlocks.create(
      { channelName: this.resolvedName, numSlots, queueArenaBytes },
      this.counters,
    );
    this.registry = new Registry(this.blocks);
  }

  publisher(id: number, options: Partial<PublishingEndOptions> = {}): PublishingEnd {
    const { sessionId, resolvedName, blocks, slotBytes } = this;
    this.counters.countPublisher(1, options.reliable ?? false);
    return new PublishingEnd({ sessionId, resolvedName, blocks, id, slotBytes, ...options });
  }

  subscriber(id: number, options: Partial<ReadingEndOptions> = {}): ReadingEnd {
    const { sessionId, resolvedName, blocks } = this;
    this.registry.addSubscriber(id, options.vchanId ?? -1, true);
    this.counters.countSubscriber(1, options.reliable ?? false);
    return new ReadingEnd({ sessionId, resolvedName, blocks, id, ...options });
  }

  /** What the server does when a subscriber is gone. */
  removeSubscriber(id: number, reliable: boolean): number[] {
    const retired = this.registry.removeSubscriber(id, reliable);
    this.counters.countSubscriber(-1, reliable);
    return retired;
  }

  get offsets(): ControlBlockOffsets {
    return controlBlockOffsets(this.blocks.numSlots, this.blocks.shape.queueArenaBytes);
  }

  /** The control block as plain memory, to damage it. */
  map(): Mapping {
    return Mapping.map(this.blocks.ccbFd, this.blocks.bytes);
  }

  trigger(): Fd {
    const fd = createEventFd();
    this.#triggers.push(fd);
    return fd;
  }

  [Symbol.dispose](): void {
    unlinkBuffers(this.sessionId, this.resolvedName, this.blocks.numBuffers);
    for (const fd of this.#triggers) fd.close();
    this.blocks[Symbol.dispose]();
    this.scb[Symbol.dispose]();
  }
}

/** The trigger of a user that knows nothing of doorbells. */
export function alwaysWritten(fdNumber: number): Trigger {
  return { fdNumber, sleeperId: -1 };
}

/** Publishes a text; returns its ordinal, or null where there was no slot. */
export function send(publisher: PublishingEnd, text: string): number | null {
  const bytes = encoder.encode(text);
  const buffer = publisher.buffer(bytes.length);
  if (buffer === null) return null;
  buffer.set(bytes);
  return publisher.publish(bytes.length);
}

/** Reads and releases the next message; null where there is none. */
export function receive(subscriber: ReadingEnd): string | null {
  if (!subscriber.readNext()) return null;
  const text = decoder.decode(subscriber.payload);
  subscriber.release(subscriber.slotId);
  return text;
}

/** Reads and releases all that is there. */
export function receiveAll(subscriber: ReadingEnd): string[] {
  const texts: string[] = [];
  for (let text = receive(subscriber); text !== null; text = receive(subscriber)) texts.push(text);
  return texts;
}
