/**
 * All channels of a server, and what happens to them: the state machine behind the requests.
 *
 * Synchronous, and free of sockets and clocks of its own: the machine is passed in as a `Host`, and what happens is
 * reported to `effects`, in order. Requests are checked elsewhere; what gets here is done, or an exception leaves
 * everything as it was.
 *
 * Invariants: each user is in its channel, in its client or among the orphans, and counted once in the census and in
 * the system control block; a channel without users is gone before the method that emptied it returns.
 */

import { getLogger } from "@logtape/logtape";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { ControlBlocks } from "../shm/control_blocks.ts";
import { Limit } from "../shm/layout.ts";
import { Registry } from "../shm/registry.ts";
import { SystemControlBlock } from "../shm/system_control_block.ts";
import type { ShadowEventInit } from "../wire/shadow_link.ts";
import type { ChannelRecord, ClientBufferRecord } from "../wire/state_dump.ts";
import { clientBufferEvent, clientBufferKey } from "../wire/state_dump.ts";
import { Channel } from "./channel.ts";
import { ChannelSet } from "./channel_set.ts";
import type { Host } from "./host.ts";
import { wakeOthers, wakeReliablePublishers, withdraw } from "./departure.ts";
import { IdPool } from "./id_pool.ts";
import type { Change } from "./journal.ts";
import { newPublisher, newSubscriber } from "./new_users.ts";
import { Orphans } from "./orphans.ts";
import { hasEnded, processOf } from "./processes.ts";
import { LostReferences } from "./lost_references.ts";
import { removeMessageBuffers } from "./message_buffers.ts";
import { type BufferLayout, PhysicalChannel } from "./physical_channel.ts";
import type { ReplicationSource } from "./replication.ts";
import { requestError } from "./request_error.ts";
import { checkRecord, giveQueue, physicalFromRecord, reconcile, restoreUsers } from "./restoration.ts";
import {
  addUser,
  channelRecord,
  createChannel,
  eventOf,
  removeChannel,
  removeUser,
  updateOptions,
} from "./shadow_records.ts";
import type { ChannelShape, PublisherTraits, ReclaimTraits, SubscriberTraits } from "./traits.ts";
import { type UnsettledPublisher, UnsettledPublishers } from "./unsettled_publishers.ts";
import { type Client, type Publisher, type Subscriber, type User, userFds } from "./users.ts";

const log = getLogger(["subspace", "server"]);

/** Where a table reports what happened. */
export interface Effects {
  /** An event for the shadows. The fds are borrowed. */
  replicate(event: ShadowEventInit, fds: readonly Fd[]): void;
  /** What the channel directory says has changed. */
  directoryChanged(): void;
}

const silence: Effects = { replicate: () => {}, directoryChanged: () => {} };

/** What a table knows beside its channels and users. */
export interface Leftovers {
  readonly unsettled: readonly UnsettledPublisher[];
  /** Channels that subscribers have left, perhaps with messages that they still seem to hold. */
  readonly leftChannels: readonly string[];
  /** Multiplexers, also those without virtual channels. */
  readonly multiplexers: readonly string[];
}

/** The channels of one session. */
export class ChannelTable implements ReplicationSource, Disposable {
  readonly #channels = new ChannelSet();
  readonly #ids = new IdPool(Limit.channels);
  readonly #orphans: Orphans;
  readonly #lostReferences = new LostReferences();
  readonly #unsettled: UnsettledPublishers;
  /** Told of every change; nothing until it is set. */
  effects: Effects = silence;
  /** Orphans that were removed, as their process had ended or their time was up. */
  orphansReaped = 0;

  private constructor(
    readonly host: Host,
    readonly sessionId: bigint,
    readonly systemBlock: SystemControlBlock,
  ) {
    this.#orphans = new Orphans(host);
    this.#unsettled = new UnsettledPublishers(host);
  }

  /** A fresh session. Its id is the time, in nanoseconds (section 2.2). */
  static create(host: Host): ChannelTable {
    return new ChannelTable(host, host.monotonicNs(), SystemControlBlock.create(host.createMemory));
  }

  /**
   * A session that goes on, still without channels: `restoreChannel` brings them. Takes the fd over unless it throws.
   *
   * @throws {RangeError} If the memory is no system control block.
   */
  static recover(host: Host, sessionId: bigint, scb: Fd): ChannelTable {
    return new ChannelTable(host, sessionId, SystemControlBlock.attach(scb));
  }

  get scb(): Fd {
    return this.systemBlock.fd;
  }

  /** How many channels there are, virtual ones included. */
  get size(): number {
    return this.#channels.size;
  }

  /** Users whose client has not come back yet. */
  get numOrphans(): number {
    return this.#orphans.size;
  }

  /** Whether no channel id is left. */
  get full(): boolean {
    return this.#ids.full;
  }

  find(name: string): Channel | undefined {
    return this.#channels.find(name);
  }

  /** The channel whose message buffers would have the same names: `a/b` and `a.b` cannot both be. */
  findNamesake(name: string): string | undefined {
    return this.#channels.findNamesake(name);
  }

  /** All channels, oldest first: a multiplexer comes before its virtual channels. */
  channels(): Iterable<Channel> {
    return this.#channels;
  }

  /** @inheritdoc */
  *records(): Generator<ChannelRecord> {
    for (const channel of this.#channels) yield channelRecord(channel);
  }

  /** @inheritdoc */
  eventOf(change: Change): [ShadowEventInit, Fd[]] | null {
    return eventOf(change, (name) => this.find(name));
  }

  // Channels

  /** Makes a channel, or a multiplexer. There must be a free id, and none of its name. */
  createChannel(name: string, multiplexer: boolean, shape: ChannelShape): Channel {
    const id = this.#ids.allocate();
    if (id === null) {
      throw requestError("INTERNAL", `No capacity for another ${multiplexer ? "mux" : "channel"}`);
    }
    try {
      const counters = this.systemBlock.counters(id);
      // A server that died while it removed a channel may have left some.
      counters.clear();
      const { layout, queueArenaBytes } = shape;
      const block = { channelName: name, numSlots: layout.numSlots, queueArenaBytes };
      const blocks = ControlBlocks.create(block, counters, this.host.createMemory);
      const physical = new PhysicalChannel(id, name, multiplexer, counters, layout, blocks);
      physical.type = shape.type;
      physical.prefixKnown = !physical.isPlaceholder;
      return this.#insert(physical.channel);
    } catch (error) {
      this.#ids.release(id);
      throw error;
    }
  }

  /** Makes a virtual channel. The id must be free on its multiplexer. */
  createVirtualChannel(name: string, multiplexer: PhysicalChannel, vchanId: number): Channel {
    const channel = new Channel(name, multiplexer, vchanId);
    multiplexer.virtualChannels!.set(vchanId, channel);
    return this.#insert(channel);
  }

  #insert(channel: Channel): Channel {
    this.#channels.add(channel);
    this.effects.replicate(...createChannel(channel));
    this.effects.directoryChanged();
    return channel;
  }

  /** Gives a placeholder its real memory. Its subscribers move over, and notice by the publisher that comes next. */
  remap(physical: PhysicalChannel, layout: BufferLayout, queueArenaBytes: number): void {
    const shape = { channelName: physical.name, numSlots: layout.numSlots, queueArenaBytes };
    using cleanup = new DisposableStack();
    const blocks = cleanup.use(ControlBlocks.create(shape, physical.counters, this.host.createMemory));
    const registry = new Registry(blocks);
    for (const user of physical.users()) {
      if (user.kind === "publisher") continue;
      giveQueue(registry, user);
      registry.addSubscriber(user.id, user.channel.vchanId, true);
    }
    cleanup.move();
    physical.replaceBlocks(blocks);
    physical.layout = layout;
    physical.prefixKnown = true;
    for (const channel of physical.channels()) this.effects.replicate(...createChannel(channel));
  }

  /** Settings of a channel that were unknown when it was made have become known. */
  settingsChanged(physical: PhysicalChannel): void {
    for (const channel of physical.channels()) this.effects.replicate(...createChannel(channel));
    this.effects.directoryChanged();
  }

  /** Tells the shadows of a channel's options, unless they know. */
  replicateOptions(physical: PhysicalChannel): void {
    if (!physical.noteOptionsReplicated()) return;
    this.effects.replicate(updateOptions(physical), []);
  }

  /** Removes a channel that nothing keeps alive, its memory, and then its multiplexer if it was the last on it. */
  removeIfEmpty(channel: Channel): void {
    if (!channel.isEmpty || this.find(channel.name) !== channel) return;
    const { physical } = channel;
    this.#channels.delete(channel);
    this.effects.replicate(removeChannel(channel), []);
    if (channel.isVirtual) {
      physical.virtualChannels!.delete(channel.vchanId);
      this.removeIfEmpty(physical.channel);
    } else {
      removeMessageBuffers(this.host, this.sessionId, physical);
      this.#lostReferences.forget(physical);
      physical.close();
      physical.counters.clear();
      this.#ids.release(physical.id);
    }
    this.effects.directoryChanged();
  }

  // Users

  /** Adds a publisher. There must be a free user id. */
  addPublisher(channel: Channel, client: Client, traits: PublisherTraits): Publisher {
    using cleanup = new DisposableStack();
    const id = this.#allocateUserId(channel.physical, "publisher", cleanup);
    const user = newPublisher(this.host, id, channel, client, traits);
    cleanup.move();
    channel.publishers.set(id, user);
    this.#join(user, client);
    channel.physical.counters.countPublisher(1, traits.isReliable);
    return user;
  }

  /** Adds a subscriber. There must be a free user id. */
  addSubscriber(channel: Channel, client: Client, traits: SubscriberTraits): Subscriber {
    const { physical } = channel;
    using cleanup = new DisposableStack();
    const id = this.#allocateUserId(physical, "subscriber", cleanup);
    const user = newSubscriber(this.host, id, channel, client, traits);
    cleanup.move();
    channel.subscribers.set(id, user);
    physical.registry.addSubscriber(id, channel.vchanId, true);
    this.#join(user, client);
    physical.counters.countSubscriber(1, traits.isReliable);
    return user;
  }

  #allocateUserId(physical: PhysicalChannel, kind: User["kind"], cleanup: DisposableStack): number {
    const id = physical.userIds.allocate();
    if (id === null) throw requestError("INTERNAL", `No capacity for another ${kind}`);
    cleanup.defer(() => physical.userIds.release(id));
    physical.registry.forgetSleeper(id);
    return id;
  }

  #join(user: User, client: Client): void {
    user.channel.physical.census.add(user);
    client.users.add(user);
    this.effects.replicate(...addUser(user));
    this.effects.directoryChanged();
  }

  /** An orphan's client has come back: in which process, and whether it says when it sleeps. */
  reclaim(user: User, client: Client, { processId: claimedPid, doorbell }: ReclaimTraits): void {
    this.#give(user, client, claimedPid);
    const { info } = user.record, { processId, processStart } = info;
    const changed = doorbell !== info.doorbell || client.token !== info.clientToken;
    Object.assign(info, processOf(this.host, client, claimedPid), { doorbell, clientToken: client.token });
    // The reference's shadows keep what they have of an id that is added again.
    if (processId !== info.processId) this.effects.replicate(removeUser(user), []);
    if (changed || processId !== info.processId || processStart !== info.processStart) {
      this.effects.replicate(...addUser(user));
    }
    this.effects.directoryChanged();
  }

  #give(user: User, client: Client, claimedPid: bigint): void {
    this.#orphans.delete(user);
    user.client = client;
    client.users.add(user);
    user.claimedPid = claimedPid;
  }

  /** Removes a user: it asked for it (`asked`), or its client is gone. */
  remove(user: User, asked: boolean): void {
    this.#remove(user, asked, asked || hasEnded(this.host, user.record.info));
  }

  /** @param over Whether it certainly does nothing any more. */
  #remove(user: User, asked: boolean, over: boolean): void {
    const { channel, id, record } = user, { physical } = channel;
    const settled = withdraw(this.host, user, over);
    if (user.kind === "publisher") physical.counters.countPublisher(-1, record.info.isReliable);
    else physical.counters.countSubscriber(-1, record.info.isReliable);
    // Should the server die here, the user is still known, and leaves after the recovery.
    this.effects.replicate(removeUser(user), []);
    physical.census.remove(user);
    if (settled) physical.userIds.release(id);
    else this.#unsettled.add(physical, id, record.info);
    user.client?.users.delete(user);
    this.#orphans.delete(user);
    if (user.kind === "subscriber" && !asked) this.#lostReferences.noteDeparture(physical);
    wakeOthers(this.host, user);
    closeAll(userFds(user));
    this.removeIfEmpty(channel);
    this.effects.directoryChanged();
  }

  /** A client's connection has ended: so have all of its users. */
  disconnect(client: Client): void {
    const processId = BigInt(client.pid),
      ended = hasEnded(this.host, processOf(this.host, client, processId));
    for (const user of [...client.users]) {
      this.#remove(user, false, ended && user.record.info.processId === processId);
    }
  }

  /** Removes the orphans whose process has ended, now and as soon as another one does: nobody comes back for them. */
  reapOrphans(): void {
    const ended = this.#orphans.ended(() => this.reapOrphans());
    this.#reap(ended, "as their process has ended");
  }

  /** Watches no process until `reapOrphans` is called again. */
  leaveOrphans(): void {
    this.#orphans.unwatch();
  }

  /** A client has claimed all that it has: it does not know of its other orphans, or wants them no more. */
  removeUnclaimed(client: Client): void {
    if (client.token === 0n) return;
    for (const user of [...this.#orphans.of(client)]) this.remove(user, true);
  }

  /** Removes all orphans: they have had time enough to come back. */
  dismissOrphans(): void {
    this.#reap([...this.#orphans], "as their clients did not come back in time (--orphan_grace)");
  }

  #reap(users: readonly User[], reason: string): void {
    if (users.length === 0) return;
    for (const user of users) this.remove(user, false);
    this.orphansReaped += users.length;
    log.info("Removed {count} users {reason} (orphans_reaped={total})", {
      count: users.length,
      reason,
      total: this.orphansReaped,
    });
  }

  /**
   * Frees the ids of publishers that had not left the queues when they were removed, and have since, messages that dead
   * subscribers still seem to hold, and channels that nobody has. To be called every few seconds.
   */
  sweep(): void {
    for (const channel of this.#channels) this.removeIfEmpty(channel);
    this.#unsettled.settle((physical) => this.find(physical.name)?.physical === physical);
    for (const physical of this.#lostReferences.reclaim()) {
      wakeReliablePublishers(this.host, physical.channels());
    }
  }

  // Registered parts of split buffers

  /** Keeps a registration; of several for the same part the first wins. Takes over its fd, or closes it. */
  registerBuffer(physical: PhysicalChannel, buffer: ClientBufferRecord): void {
    const key = clientBufferKey(buffer.metadata);
    if (physical.clientBuffers.has(key)) return buffer.fd?.close();
    physical.clientBuffers.set(key, buffer);
    this.effects.replicate(...clientBufferEvent(buffer));
  }

  /** Forgets all parts of a buffer. */
  unregisterBuffer(physical: PhysicalChannel, bufferIndex: number): void {
    for (const [key, { metadata, fd }] of physical.clientBuffers) {
      if (metadata.bufferIndex !== bufferIndex) continue;
      physical.clientBuffers.delete(key);
      fd?.close();
    }
    const value = { channelName: physical.name, sessionId: this.sessionId, bufferIndex };
    this.effects.replicate({ event: { case: "unregisterClientBuffer", value } }, []);
  }

  // Recovery

  /**
   * Brings back a channel or a multiplexer, with its users as orphans. Takes the record's fds over. Where it throws
   * nothing has changed, and whoever has the record closes it.
   *
   * @param multiplexer Whether other records name it as theirs.
   * @throws {Error} If the record contradicts itself, the table, or its memory.
   */
  restoreChannel(record: ChannelRecord, multiplexer: boolean): void {
    const { channelName, channelId } = record.info;
    if (this.find(channelName) !== undefined || !this.#ids.isFree(channelId)) {
      throw new Error(
        `Cannot recover channel ${channelName} (id=${channelId}): the name or the id is taken, or out of range`,
      );
    }
    checkRecord(record, () => true);
    const physical = physicalFromRecord(record, multiplexer, this.systemBlock.counters(channelId));
    this.#ids.reserve(channelId);
    this.#channels.add(physical.channel);
    this.#restoreUsers(physical.channel, record);
  }

  /**
   * Brings back a virtual channel, with its users as orphans; its multiplexer must be there. Takes the record's fds
   * over. Where it throws nothing has changed, and whoever has the record closes it.
   *
   * @throws {Error} If the record contradicts itself or its multiplexer.
   */
  restoreVirtualChannel(record: ChannelRecord): void {
    const { channelName, channelId, mux, vchanId } = record.info;
    const physical = this.find(mux)?.physical;
    const free = physical !== undefined && physical.name === mux &&
      physical.virtualChannels?.has(vchanId) === false &&
      vchanId >= 0 && vchanId < Limit.virtualChannels;
    if (!free || this.find(channelName) !== undefined || physical.id !== channelId) {
      throw new Error(
        `Cannot recover virtual channel ${channelName}: it does not fit multiplexer ${mux} (id=${channelId})`,
      );
    }
    checkRecord(record, (id) => physical.userIds.isFree(id));
    const channel = new Channel(channelName, physical, vchanId);
    physical.virtualChannels!.set(vchanId, channel);
    this.#channels.add(channel);
    closeAll([record.ccb, record.bcb]);
    for (const { fd } of record.clientBuffers.values()) fd?.close();
    this.#restoreUsers(channel, record);
  }

  #restoreUsers(channel: Channel, record: ChannelRecord): void {
    for (const user of restoreUsers(channel, record)) this.#orphans.add(user);
  }

  /**
   * The last step of a recovery, when all channels are there: their memory is made to agree with their users. Before
   * it, nothing in their memory has changed.
   *
   * @throws {Error} If a queue arena contradicts itself.
   */
  finishRecovery(): void {
    for (const physical of this.#channels.physical()) reconcile(physical);
  }

  // Handing over to another server, which recovers a dump first

  /** What is not in a dump. */
  get leftovers(): Leftovers {
    const multiplexers = [...this.#channels].filter(({ isMultiplexer }) => isMultiplexer);
    return {
      unsettled: [...this.#unsettled],
      leftChannels: Array.from(this.#lostReferences.channels, ({ name }) => name),
      multiplexers: multiplexers.map(({ name }) => name),
    };
  }

  /** Adds what was not in the dump. What does not fit is left out. */
  addLeftovers({ unsettled, leftChannels }: Leftovers): void {
    for (const { channelName, id, ...process } of unsettled) {
      const physical = this.find(channelName)?.physical;
      if (!physical?.userIds.isFree(id)) continue;
      physical.userIds.reserve(id);
      this.#unsettled.add(physical, id, process);
    }
    for (const name of leftChannels) {
      const channel = this.find(name);
      if (channel !== undefined) this.#lostReferences.noteDeparture(channel.physical);
    }
  }

  /** Gives an orphan to its client, which has never lost its connection. Returns whether there is such an orphan. */
  reattach(client: Client, channelName: string, id: number, claimedPid: bigint): boolean {
    const channel = this.find(channelName);
    const user = channel?.publishers.get(id) ?? channel?.subscribers.get(id);
    if (user === undefined || user.client !== null) return false;
    this.#give(user, client, claimedPid);
    return true;
  }

  // The end

  /** Tells the shadows that all channels are gone, virtual ones before their multiplexers. */
  announceEnd(): void {
    for (const channel of [...this.#channels].reverse()) this.effects.replicate(removeChannel(channel), []);
  }

  /** Removes all channels and their memory. Nobody is told: this session is over. */
  removeAll(): void {
    this.effects = silence;
    for (const physical of this.#channels.physical()) {
      removeMessageBuffers(this.host, this.sessionId, physical);
    }
    this.close();
  }

  /** Lets go of all fds and mappings. The memory, and what a shadow knows of it, stays. */
  close(): void {
    this.effects = silence;
    for (const channel of this.#channels) for (const user of channel.users()) closeAll(userFds(user));
    for (const physical of this.#channels.physical()) physical.close();
    this.#channels.clear();
    this.#orphans[Symbol.dispose]();
    this.#unsettled.clear();
    this.systemBlock[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
