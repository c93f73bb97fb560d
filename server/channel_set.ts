/** The channels of a session, by name. */

import type { Channel } from "./channel.ts";
import { bufferStem } from "./message_buffers.ts";
import type { PhysicalChannel } from "./physical_channel.ts";

/** Channels in the order in which they came: a multiplexer before its virtual channels. */
export class ChannelSet implements Iterable<Channel> {
  readonly #byName = new Map<string, Channel>();
  /** Names of physical channels, as they are in the names of message buffers. */
  readonly #bufferNames = new Map<string, string>();

  /** How many there are, virtual ones included. */
  get size(): number {
    return this.#byName.size;
  }

  find(name: string): Channel | undefined {
    return this.#byName.get(name);
  }

  /** The channel whose message buffers would have the same names: `a/b` and `a.b` cannot both be. */
  findNamesake(name: string): string | undefined {
    return this.#bufferNames.get(bufferStem(name));
  }

  [Symbol.iterator](): Iterator<Channel> {
    return this.#byName.values();
  }

  /** Those with memory of their own. */
  *physical(): Generator<PhysicalChannel> {
    for (const { isVirtual, physical } of this.#byName.values()) if (!isVirtual) yield physical;
  }

  add(channel: Channel): void {
    this.#byName.set(channel.name, channel);
    if (!channel.isVirtual) this.#bufferNames.set(bufferStem(channel.name), channel.name);
  }

  delete({ name, isVirtual }: Channel): void {
    this.#byName.delete(name);
    if (!isVirtual) this.#bufferNames.delete(bufferStem(name));
  }

  clear(): void {
    this.#byName.clear();
    this.#bufferNames.clear();
  }
}
