/** What a server says about itself: less than its shadow does, and only about clients that are connected. */

import type {
  ChannelInfoProto,
  ChannelParticipantInfoProto,
  ChannelStatsProto,
} from "../proto/subspace_pb.ts";
import { Findings } from "./findings.ts";
import { type Channel, type Inspection, SCHEMA_VERSION, type Source, type User } from "./model.ts";
import { byNameBehindMultiplexer, sessionAgeMs, typeText } from "./naming.ts";
import type { Surroundings } from "./surroundings.ts";

/** A server's answers. */
export interface ServerAnswers {
  readonly sessionId: bigint;
  readonly channels: readonly ChannelInfoProto[];
  readonly stats: readonly ChannelStatsProto[];
}

/** Puts a server's answers together. */
export function viewOfServer(answers: ServerAnswers, source: Source, surroundings: Surroundings): Inspection {
  const view = new ServerView(answers, surroundings);
  return {
    schemaVersion: SCHEMA_VERSION,
    source,
    session: {
      id: String(answers.sessionId),
      ageMs: sessionAgeMs(answers.sessionId, surroundings.nowNs),
      server: { pid: source.pid, alive: true },
    },
    channels: answers.channels.map((info) => view.channel(info)).sort(byNameBehindMultiplexer),
    findings: view.findings.sorted(),
    programs: null,
  };
}

class ServerView {
  readonly findings = new Findings();
  readonly #stats: ReadonlyMap<string, ChannelStatsProto>;
  readonly #multiplexers: ReadonlySet<string>;

  constructor({ channels, stats }: ServerAnswers, private readonly surroundings: Surroundings) {
    this.#stats = new Map(stats.map((it) => [it.channelName, it]));
    this.#multiplexers = new Set(channels.filter(({ isVirtual }) => isVirtual).map(({ mux }) => mux));
  }

  channel(info: ChannelInfoProto): Channel {
    const stats = this.#stats.get(info.name);
    const kind = this.#kind(info);
    // What a server counts for a virtual channel is that of its whole multiplexer.
    const shared = kind === "virtual" || kind === "multiplexer";
    const countOf = (members: readonly unknown[], counted: number) => shared ? members.length : counted;
    if (kind !== "virtual") this.findings.addDrops(info.name, stats?.totalDrops ?? 0);
    const participants = info.participants.toSorted((a, b) => a.id - b.id);
    const publishers = participants.filter(({ isPublisher }) => isPublisher);
    const subscribers = participants.filter(({ isSubscriber }) => isSubscriber);
    return {
      name: info.name,
      id: info.channelId,
      kind,
      mux: info.isVirtual ? info.mux : null,
      vchanId: info.isVirtual ? info.vchanId : null,
      type: typeText(info.type),
      numSlots: info.numSlots,
      slotBytes: info.slotSize,
      numPublishers: countOf(publishers, info.numPubs),
      numSubscribers: countOf(subscribers, info.numSubs),
      options: null,
      publishers: publishers.map((user) => ({
        ...this.#user(info.name, user, "publisher"),
        local: null,
        fixedSize: null,
        notifyRetirement: null,
        maxOutstandingSlotLeases: null,
        owns: null,
      })),
      subscribers: subscribers.map((user) => ({
        ...this.#user(info.name, user, "subscriber"),
        maxActiveMessages: null,
        queueSize: null,
        holds: null,
        unread: null,
      })),
      traffic: stats === undefined || kind === "virtual" ? null : {
        messages: Number(stats.totalMessages),
        bytes: Number(stats.totalBytes),
        maxMessageBytes: stats.maxMessageSize,
        drops: stats.totalDrops,
      },
      slots: null,
      buffers: null,
      clientBuffers: [],
    };
  }

  #kind(info: ChannelInfoProto): Channel["kind"] {
    if (info.isVirtual) return "virtual";
    if (this.#multiplexers.has(info.name)) return "multiplexer";
    return info.numSlots === 0 ? "placeholder" : "channel";
  }

  #user(channel: string, user: ChannelParticipantInfoProto, what: string): User {
    return {
      id: user.id,
      process: this.findings.checkProcess(this.surroundings, user.pid, `${what} ${user.id} of ${channel}`),
      program: user.programName === "" ? null : user.programName,
      reliable: user.isReliable,
      bridge: user.isBridge,
      tunnel: user.forTunnel,
    };
  }
}
