/**
 * What an operator sees, as plain data: what `--json` prints.
 *
 * Integers that identify something and may pass 2^53 are decimal strings (session ids); counts are numbers. What is
 * not known is null: a server tells less than a shadow, and neither tells all.
 */

/** Raised whenever a member goes away or changes its meaning. New members may come at any time. */
export const SCHEMA_VERSION = 1;

/** A whole system at some moment. Its parts are read one after the other while it goes on. */
export interface Inspection {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly source: Source;
  /** null where a shadow has no session yet. */
  readonly session: Session | null;
  /** By name; virtual channels behind their multiplexer. */
  readonly channels: readonly Channel[];
  /** What needs attention, the worst first. */
  readonly findings: readonly Finding[];
  /** What server and shadows say of themselves; null where they were not asked. */
  readonly programs: Programs | null;
}

/** The server and the shadows of a system, as they say of themselves. */
export interface Programs {
  /** null where nobody knows where it listens, or it does not answer as a server of ours does. */
  readonly server: ServerProgram | null;
  /** Whether the server that a shadow names listens and answers nobody: it is stopped, or busy without end. */
  readonly serverSilent: boolean;
  readonly shadows: readonly ShadowProgram[];
}

/** Something that a program counts. */
export interface CounterValue {
  /** Ends in `_total` where it only grows. */
  readonly name: string;
  /** What `of` is, such as `kind` or `reason`; null where there is one of the name only. */
  readonly label: string | null;
  readonly of: string | null;
  readonly value: number;
}

/** A server of ours. */
export interface ServerProgram {
  readonly socket: string;
  readonly pid: number;
  /** A number for its run; null without shadows. */
  readonly generation: string | null;
  /** Of its newest change. */
  readonly offset: number;
  readonly counters: readonly CounterValue[];
}

/** A shadow. */
export interface ShadowProgram {
  readonly socket: string;
  /** What its server calls it; null where no server tells. */
  readonly label: string | null;
  /** `reference`: a C++ one, which tells nothing of itself. `gone`: nobody answers. */
  readonly kind: "ours" | "reference" | "gone";
  /** Why it could not be asked; null where it answered. */
  readonly problem: string | null;
  readonly pid: number | null;
  /** Of the session that it keeps; null where it has none. */
  readonly sessionId: string | null;
  readonly numChannels: number | null;
  /** How far its copy goes; null where it does not say. */
  readonly position:
    | { readonly generation: string; readonly offset: number; readonly complete: boolean }
    | null;
  /** Whether a server is connected to it; null where nobody says. */
  readonly connected: boolean | null;
  /** Changes that it has not got yet; null where that cannot be told. */
  readonly lag: number | null;
  /** What it lags behind. */
  readonly behind: "server" | "freshest" | null;
  /** Whether its copy is whole and lags behind nobody; null where that cannot be told. */
  readonly inStep: boolean | null;
  /** Why it was sent everything the last time: `start`, `new`, `behind`, `reference`; null where nobody says. */
  readonly lastFullSync: string | null;
  /** How often it was sent everything, or only what it had missed, by the server that runs; null where it does not say. */
  readonly fullSyncs: number | null;
  readonly partialSyncs: number | null;
  /** What it keeps aside of the time before; null for nothing. */
  readonly previous: { readonly sessionId: string; readonly numChannels: number } | null;
  readonly counters: readonly CounterValue[];
}

/** Who told. */
export interface Source {
  readonly kind: "shadow" | "server";
  readonly socket: string;
  readonly pid: number;
}

/** The life of a server's state, which survives the server's own deaths. */
export interface Session {
  readonly id: string;
  /** Time since it began; null where the session id is no time of this boot. */
  readonly ageMs: number | null;
  /** The process that serves, or served, it; null where nobody says. */
  readonly server: Process | null;
}

/** A process, as far as this pid namespace shows it. */
export interface Process {
  readonly pid: number;
  readonly alive: boolean;
}

/** Something that needs attention. */
export interface Finding {
  /**
   * `damage`: memory contradicts itself. `dead`: a process is gone. `mismatch`: server and shadow disagree. `drops`:
   * messages were missed.
   */
  readonly kind: "damage" | "dead" | "mismatch" | "drops";
  /** The channel; null for the system as a whole. */
  readonly channel: string | null;
  readonly text: string;
}

/** A channel. */
export interface Channel {
  readonly name: string;
  /** A virtual channel has that of its multiplexer. */
  readonly id: number;
  readonly kind: "channel" | "multiplexer" | "virtual" | "placeholder";
  /** The multiplexer of a virtual channel. */
  readonly mux: string | null;
  readonly vchanId: number | null;
  /** As text; bytes that are no UTF-8 as hexadecimal digits behind `0x`. Empty where there is none. */
  readonly type: string;
  readonly numSlots: number;
  /** Payload bytes of a slot of the newest buffer. */
  readonly slotBytes: number;
  /** Users of a multiplexer itself; its virtual channels count theirs. */
  readonly numPublishers: number;
  readonly numSubscribers: number;
  readonly options: ChannelOptions | null;
  readonly publishers: readonly Publisher[];
  readonly subscribers: readonly Subscriber[];
  readonly traffic: Traffic | null;
  readonly slots: SlotUse | null;
  /** Message buffers, the oldest first; null where nobody says. */
  readonly buffers: readonly Buffer[] | null;
  readonly clientBuffers: readonly ClientBuffer[];
}

/** What was asked for when the channel was made. */
export interface ChannelOptions {
  readonly local: boolean;
  readonly reliable: boolean;
  readonly fixedSize: boolean;
  readonly splitBuffers: boolean;
  readonly splitBuffersOverBridge: boolean;
  readonly checksumBytes: number;
  readonly metadataBytes: number;
  /** Room for subscriber queues. */
  readonly queueArenaBytes: number;
  /** null: no limit was set. */
  readonly maxPublishers: number | null;
  readonly maxSubscribers: number | null;
}

/** What publishers and subscribers have in common. */
export interface User {
  readonly id: number;
  /** null where the client did not say. */
  readonly process: Process | null;
  /** The client's name; only a server knows. */
  readonly program: string | null;
  readonly reliable: boolean;
  readonly bridge: boolean;
  readonly tunnel: boolean;
}

/** A publisher. */
export interface Publisher extends User {
  readonly local: boolean | null;
  readonly fixedSize: boolean | null;
  readonly notifyRetirement: boolean | null;
  /** Slots that it may hold at a time. */
  readonly maxOutstandingSlotLeases: number | null;
  /** Slots that it owns now; null where nobody says. */
  readonly owns: readonly number[] | null;
}

/** A subscriber. */
export interface Subscriber extends User {
  readonly maxActiveMessages: number | null;
  /** Entries that it asked for; 0: the channel's default. */
  readonly queueSize: number | null;
  /** Slots whose messages it holds now; null where nobody says. */
  readonly holds: readonly number[] | null;
  /** Messages that wait for it; null where nobody says. */
  readonly unread: number | null;
}

/** Counts since the channel was made. Of a virtual channel only its messages are counted. */
export interface Traffic {
  /** Publications, including activation messages. */
  readonly messages: number;
  readonly bytes: number | null;
  readonly maxMessageBytes: number | null;
  /** Messages that subscribers reported missing. */
  readonly drops: number | null;
}

/** What the slots are doing. Each one is counted once; for a virtual channel, only those with its messages. */
export interface SlotUse {
  /** Without a message. */
  readonly free: number;
  /** A publisher writes into it, or has it in advance. */
  readonly owned: number;
  /** Subscribers hold its message. */
  readonly held: number;
  /** Its message was not read by all yet, or never will be. */
  readonly published: number;
  /** All subscribers are done with its message. */
  readonly retired: number;
  /** The highest ordinal in a slot; 0 where none has a message. */
  readonly newestOrdinal: number;
}

/** A message buffer: one for each time that the channel grew. */
export interface Buffer {
  readonly bytes: number;
  readonly slotBytes: number;
  /** Slots that are assigned to it now. */
  readonly slotsAssigned: number;
}

/** The registered parts of one split buffer. */
export interface ClientBuffer {
  readonly bufferIndex: number;
  /** Parts: the prefixes, and one per slot. */
  readonly parts: number;
  /** Parts whose memory came with the registration. */
  readonly partsWithFd: number;
  readonly bytes: number;
  /** Who allocates: `split_shm`, `android_memfd` and so on. */
  readonly allocator: string;
}
