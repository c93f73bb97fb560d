/** The system control block: per channel, the counters by which clients notice changes (specification, section 4.1). */

import type { Fd } from "../ffi/fd.ts";
import { createMemory, type MemoryAllocator } from "../ffi/memory_object.ts";
import { arena, type ArenaMapping } from "./arena.ts";
import { Limit, Scb } from "./layout.ts";

/** One process's view of a server's system control block. Owns its fd. */
export class SystemControlBlock implements Disposable {
  readonly #mapping: ArenaMapping;

  private constructor(/** To hand out, or to replicate. */ readonly fd: Fd) {
    this.#mapping = arena().map(fd, Scb.bytes);
  }

  /** A new one, all zero. */
  static create(allocate: MemoryAllocator = createMemory): SystemControlBlock {
    const fd = allocate("subspace.scb", Scb.bytes);
    try {
      return new SystemControlBlock(fd);
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  /**
   * Maps an existing one. Takes the fd over unless it throws.
   *
   * @throws {RangeError} If the memory is too short.
   */
  static attach(fd: Fd): SystemControlBlock {
    return new SystemControlBlock(fd);
  }

  /** A channel's counters. They stay valid while this object is not disposed. */
  counters(channelId: number): ChannelCounters {
    if (!Number.isInteger(channelId) || channelId < 0 || channelId >= Limit.channels) {
      throw new RangeError(
        `Cannot look at the counters of channel ${channelId}: ids are 0 to ${Limit.channels - 1}`,
      );
    }
    return new ChannelCounters(this.#mapping.address + Scb.stride * channelId);
  }

  [Symbol.dispose](): void {
    this.#mapping.unmap();
    this.fd.close();
  }
}

/** The counters of a channel, shared by all virtual channels of a multiplexer: u16 each, written by the server only. */
export class ChannelCounters {
  /** All of the arena: who has many channels looks at these each time, and a view for each would have to be fetched. */
  readonly #u16 = arena().u16;
  readonly #first: number;

  constructor(/** In the arena. */ readonly address: number) {
    this.#first = address / 2;
  }

  /** Grows with every publisher that comes or goes, and wraps. */
  get numPubUpdates(): number {
    return this.#get(Scb.numPubUpdates);
  }

  /** Grows with every subscriber that comes or goes, and wraps. */
  get numSubUpdates(): number {
    return this.#get(Scb.numSubUpdates);
  }

  get numPubs(): number {
    return this.#get(Scb.numPubs);
  }

  get numReliablePubs(): number {
    return this.#get(Scb.numReliablePubs);
  }

  get numSubs(): number {
    return this.#get(Scb.numSubs);
  }

  get numReliableSubs(): number {
    return this.#get(Scb.numReliableSubs);
  }

  get numResizes(): number {
    return this.#get(Scb.numResizes);
  }

  set numResizes(value: number) {
    this.#set(Scb.numResizes, value);
  }

  /** Counts a publisher that came (+1) or went (-1). Last of all, when everything else is ready for clients to see. */
  countPublisher(change: 1 | -1, reliable: boolean): void {
    this.#add(Scb.numPubs, change);
    if (reliable) this.#add(Scb.numReliablePubs, change);
    this.#add(Scb.numPubUpdates, 1);
  }

  /**
   * Counts a subscriber that came (+1) or went (-1). There is no moment at which there seem to be more unreliable ones:
   * with one that is reliable, publishers go by other signs then.
   */
  countSubscriber(change: 1 | -1, reliable: boolean): void {
    if (reliable && change > 0) this.#add(Scb.numReliableSubs, change);
    this.#add(Scb.numSubs, change);
    if (reliable && change < 0) this.#add(Scb.numReliableSubs, change);
    this.#add(Scb.numSubUpdates, 1);
  }

  /** After a recovery: says how many users there are, whatever the last server had counted when it died. */
  restate(numPubs: number, numReliablePubs: number, numSubs: number, numReliableSubs: number): void {
    this.#set(Scb.numPubs, numPubs);
    this.#set(Scb.numReliablePubs, numReliablePubs);
    this.#set(Scb.numSubs, numSubs);
    this.#set(Scb.numReliableSubs, numReliableSubs);
  }

  /** Sets all to zero: the channel is no more. */
  clear(): void {
    for (let offset = 0; offset < Scb.stride; offset += 2) this.#set(offset, 0);
  }

  #get(offset: number): number {
    return this.#u16[this.#first + offset / 2];
  }

  #set(offset: number, value: number): void {
    this.#u16[this.#first + offset / 2] = value;
  }

  /** Never takes a count below 0: what recovery brought back may not match the counters. */
  #add(offset: number, change: number): void {
    const value = this.#get(offset) + change;
    if (value >= 0) this.#set(offset, value);
  }
}
