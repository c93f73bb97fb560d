/** What a shadow's state dump, and the shared memory that comes with it, say about a system. */

import { SystemError } from "../ffi/errno.ts";
import type { Fd } from "../ffi/fd.ts";
import { ClientBufferAllocatorNames } from "../proto/subspace.ts";
import type {
  ClientBufferHandleMetadataProto,
  ShadowAddPublisher,
  ShadowAddSubscriber,
  ShadowCreateChannel,
} from "../proto/subspace_pb.ts";
import {
  type ControlBlockReport,
  type CounterReport,
  readControlBlock,
  readCounters,
  readOrdinalCount,
} from "../shm/inspection.ts";
import { prefixBytes, slotBytesOfBuffer } from "../shm/layout.ts";
import type { SeenChannel, SeenSoFar, SeenState } from "../wire/brief_dump.ts";
import { Findings } from "./findings.ts";
import type {
  Channel,
  ChannelOptions,
  ClientBuffer,
  Inspection,
  Process,
  Publisher,
  Session,
  SlotUse,
  Source,
  Subscriber,
  Traffic,
} from "./model.ts";
import { SCHEMA_VERSION } from "./model.ts";
import { byNameBehindMultiplexer, sessionAgeMs, typeText } from "./naming.ts";
import type { Surroundings } from "./surroundings.ts";

/** The channel on which every server publishes, and so says who it is. */
const DIRECTORY_CHANNEL = "/subspace/ChannelDirectory";

/**
 * Looks at a dump. Its fds stay the caller's; nothing in shared memory is changed.
 *
 * @param received How much of it came. Default: all.
 */
export function viewOfDump(
  dump: SeenState,
  source: Source,
  surroundings: Surroundings,
  received?: Pick<SeenSoFar, "failure" | "numChannels">,
): Inspection {
  const view = new DumpView(dump, surroundings);
  if (received !== undefined && received.failure !== null) {
    const arrived =
      `${dump.channels.size} of ${received.numChannels} channels arrived, the last perhaps in part`;
    const reason = received.failure.message.replace("Cannot receive a state dump: ", "");
    view.findings.add("damage", null, `the state dump broke off (${reason}): ${arrived}`);
  }
  return {
    schemaVersion: SCHEMA_VERSION,
    source,
    session: view.session(),
    channels: view.channels(),
    findings: view.findings.sorted(),
    programs: null,
  };
}

class DumpView {
  readonly findings = new Findings();
  /** Channels that others name as their multiplexer. */
  readonly #multiplexers: ReadonlySet<string>;
  /** By channel id: virtual channels share the memory of their multiplexer. */
  readonly #reports = new Map<number, ControlBlockReport>();
  readonly #records: readonly SeenChannel[];
  readonly #server: Process | null;

  constructor(private readonly dump: SeenState, private readonly surroundings: Surroundings) {
    this.#records = [...dump.channels.values()];
    this.#multiplexers = new Set(this.#records.map(({ info }) => info.mux).filter((mux) => mux !== ""));
    this.#server = this.#findServer();
  }

  session(): Session | null {
    if (this.dump.scb === null) return null;
    return {
      id: String(this.dump.sessionId),
      ageMs: sessionAgeMs(this.dump.sessionId, this.surroundings.nowNs),
      server: this.#server,
    };
  }

  /** Whoever publishes the directory; null where nobody does. */
  #findServer(): Process | null {
    const publishers = [...this.dump.channels.get(DIRECTORY_CHANNEL)?.publishers.values() ?? []];
    const pids = publishers.map(({ info }) => Number(info.processId)).filter((pid) => pid > 0);
    // A recovered session may still list the publishers of servers before this one.
    const alive = pids.findLast((pid) => this.surroundings.processExists(pid));
    const pid = alive ?? pids.at(-1);
    if (pid === undefined) return null;
    if (alive === undefined) {
      this.findings.add("dead", null, `the server is down: its process (${pid}) is gone`);
    }
    return { pid, alive: alive !== undefined };
  }

  channels(): Channel[] {
    const physicalFirst = this.#records.toSorted((a, b) =>
      Number(a.info.mux !== "") - Number(b.info.mux !== "")
    );
    const channels = physicalFirst.map((record) => this.#channel(record));
    this.#compareCounters(this.dump.scb);
    return channels.sort(byNameBehindMultiplexer);
  }

  #channel(record: SeenChannel): Channel {
    const { info } = record;
    const report = this.#report(record);
    const vchanId = info.mux === "" ? null : info.vchanId;
    const prefix = prefixBytes(info.checksumSize > 0 ? info.checksumSize : 4, Math.max(0, info.metadataSize));
    const buffers = report.buffers.map(({ bytes, slots }) => ({
      bytes,
      slotBytes: slotBytesOfBuffer(bytes, Math.max(1, info.numSlots), prefix),
      slotsAssigned: slots,
    }));
    const traffic = trafficOf(report, record.ccb, vchanId);
    this.findings.addDrops(info.channelName, traffic?.drops ?? 0);
    return {
      name: info.channelName,
      id: info.channelId,
      kind: this.#kind(info),
      mux: info.mux === "" ? null : info.mux,
      vchanId,
      type: typeText(info.type),
      numSlots: info.numSlots,
      slotBytes: buffers.at(-1)?.slotBytes || info.slotSize,
      numPublishers: record.publishers.size,
      numSubscribers: record.subscribers.size,
      options: optionsOf(info),
      publishers: sortedById(record.publishers.values().map((it) => this.#publisher(it, report))),
      subscribers: sortedById(record.subscribers.values().map((it) => this.#subscriber(it, report))),
      traffic,
      slots: slotUse(info, report, vchanId),
      buffers,
      clientBuffers: clientBuffersOf(record),
    };
  }

  #kind(info: ShadowCreateChannel): Channel["kind"] {
    if (info.mux !== "") return "virtual";
    if (this.#multiplexers.has(info.channelName)) return "multiplexer";
    return info.numSlots === 0 ? "placeholder" : "channel";
  }

  #report({ info, ccb, bcb }: SeenChannel): ControlBlockReport {
    const known = this.#reports.get(info.channelId);
    if (known !== undefined) return known;
    const report = readControlBlock(ccb, bcb, info.numSlots);
    this.#reports.set(info.channelId, report);
    this.findings.addDamage(info.channelName, report.problems);
    return report;
  }

  #process(user: { channelName: string; processId: bigint }, who: string): Process | null {
    // That the server is gone has been said already.
    if (this.#server !== null && Number(user.processId) === this.#server.pid) return this.#server;
    return this.findings.checkProcess(this.surroundings, user.processId, `${who} of ${user.channelName}`);
  }

  #publisher({ info }: { readonly info: ShadowAddPublisher }, { slots }: ControlBlockReport): Publisher {
    return {
      id: info.publisherId,
      process: this.#process(info, `publisher ${info.publisherId}`),
      program: null,
      reliable: info.isReliable,
      bridge: info.isBridge,
      tunnel: info.forTunnel,
      local: info.isLocal,
      fixedSize: info.isFixedSize,
      notifyRetirement: info.notifyRetirement,
      maxOutstandingSlotLeases: Math.max(1, info.maxOutstandingSlotLeases),
      owns: slots.filter(({ owner }) => owner === info.publisherId).map(({ id }) => id),
    };
  }

  #subscriber(
    { info }: { readonly info: ShadowAddSubscriber },
    { slots, unread }: ControlBlockReport,
  ): Subscriber {
    return {
      id: info.subscriberId,
      process: this.#process(info, `subscriber ${info.subscriberId}`),
      program: null,
      reliable: info.isReliable,
      bridge: info.isBridge,
      tunnel: info.forTunnel,
      maxActiveMessages: info.maxActiveMessages,
      queueSize: info.subscriberQueueSize,
      holds: slots.filter(({ holders }) => holders.includes(info.subscriberId)).map(({ id }) => id),
      unread: unread.get(info.subscriberId) ?? null,
    };
  }

  /** Users that left without the shadow being told show as a difference from what the server counts. */
  #compareCounters(scb: Fd | null): void {
    if (scb === null) return;
    let counters: CounterReport[];
    try {
      counters = readCounters(scb);
    } catch (error) {
      if (!(error instanceof RangeError || error instanceof SystemError)) throw error;
      return this.findings.add("damage", null, error.message);
    }
    for (const [id, records] of Map.groupBy(this.#records, ({ info }) => info.channelId)) {
      const { channelName } = records.find(({ info }) => info.mux === "")?.info ?? records[0].info;
      const sum = (sizeOf: (record: SeenChannel) => number) =>
        records.reduce((all, it) => all + sizeOf(it), 0);
      const compare = (what: string, listed: number, counted: number | undefined) => {
        if (listed === counted || counted === undefined) return;
        this.findings.add(
          "mismatch",
          channelName,
          `the shadow lists ${listed} ${what}, the server counts ${counted}`,
        );
      };
      compare("publishers", sum((it) => it.publishers.size), counters[id]?.numPubs);
      compare("subscribers", sum((it) => it.subscribers.size), counters[id]?.numSubs);
    }
  }
}

function optionsOf(info: ShadowCreateChannel): ChannelOptions {
  return {
    local: info.isLocal,
    reliable: info.isReliable,
    fixedSize: info.isFixedSize,
    splitBuffers: info.useSplitBuffers,
    splitBuffersOverBridge: info.splitBuffersOverBridge,
    checksumBytes: info.checksumSize,
    metadataBytes: info.metadataSize,
    queueArenaBytes: Number(info.subscriberQueueArenaSize),
    maxPublishers: info.hasMaxPublishers && info.maxPublishers > 0 ? info.maxPublishers : null,
    maxSubscribers: info.hasMaxSubscribers && info.maxSubscribers > 0 ? info.maxSubscribers : null,
  };
}

function sortedById<User extends { readonly id: number }>(users: Iterable<User>): User[] {
  return [...users].sort((a, b) => a.id - b.id);
}

function trafficOf(report: ControlBlockReport, ccb: Fd, vchanId: number | null): Traffic | null {
  if (isUnreadable(report)) return null;
  if (vchanId !== null) {
    const messages = readOrdinalCount(ccb, vchanId) ?? 0;
    return { messages, bytes: null, maxMessageBytes: null, drops: null };
  }
  const { messages, bytes, maxMessageSize, drops } = report.totals;
  return { messages, bytes, maxMessageBytes: maxMessageSize, drops };
}

/** Nothing could be read at all: a block that can be read has a version. */
function isUnreadable({ version }: ControlBlockReport): boolean {
  return version === 0;
}

/** null where the slots could not be read. */
function slotUse(
  { numSlots }: ShadowCreateChannel,
  { slots }: ControlBlockReport,
  vchanId: number | null,
): SlotUse | null {
  if (slots.length === 0 && numSlots > 0) return null;
  const use = { free: 0, owned: 0, held: 0, published: 0, retired: 0, newestOrdinal: 0 };
  for (const slot of slots) {
    if (vchanId !== null && (slot.vchanId !== vchanId || slot.state === "free")) continue;
    use[slot.state]++;
    use.newestOrdinal = Math.max(use.newestOrdinal, slot.ordinal);
  }
  return use;
}

function clientBuffersOf({ clientBuffers }: SeenChannel): ClientBuffer[] {
  const parts = clientBuffers.values().toArray();
  return Map.groupBy(parts, ({ metadata }) => metadata.bufferIndex).entries()
    .map(([bufferIndex, registered]) => ({
      bufferIndex,
      parts: registered.length,
      partsWithFd: registered.filter(({ fd }) => fd !== null).length,
      bytes: registered.reduce((sum, { metadata }) => sum + Number(metadata.allocationSize), 0),
      allocator: allocatorName(registered[0].metadata),
    })).toArray().sort((a, b) => a.bufferIndex - b.bufferIndex);
}

function allocatorName({ allocator }: ClientBufferHandleMetadataProto): string {
  const name: string | undefined = ClientBufferAllocatorNames[allocator];
  return name?.toLowerCase().replace("client_buffer_allocator_", "") ?? `allocator ${allocator}`;
}
