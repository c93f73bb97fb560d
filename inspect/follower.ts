/**
 * Following a channel whatever becomes of it: its memory is replaced when it gets its first publisher, when it is
 * removed and made again, and when a server begins another session.
 */

import { Scb } from "../shm/layout.ts";
import type { SeenChannel } from "../wire/brief_dump.ts";
import { askShadow } from "./asking.ts";
import { deadlineIn, InspectError } from "./link.ts";
import { ChannelObserver, type MessageSource, type ObservedMessage } from "./observer.ts";
import { look, type ShadowSight } from "./sight.ts";

/** The least time between two state dumps. */
const DUMP_EVERY_MS = 20;
/** After so long without a message it is asked whether there is another session. */
const QUIET_MS = 2000;
/** The same where that costs a whole state dump: a shadow of the reference's. */
const QUIET_WITH_DUMP_MS = 10_000;

/** A channel of a shadow, followed from one memory to the next. */
export class ChannelFollower implements MessageSource {
  #observer: ChannelObserver | null = null;
  #record: SeenChannel | undefined;
  /** Missed in memory that is not there any more. */
  #missedBefore = 0;
  #counters: string;
  #heardAt = performance.now();
  #askedAt = performance.now();
  #dumpedAt = -Infinity;

  /** @param sight Owned by the follower from now on. */
  constructor(private sight: ShadowSight, readonly channel: string, private readonly timeoutMs: number) {
    this.#counters = this.#countersNow();
    this.#record = sight.dump.channels.get(channel);
    if (hasMemory(this.#record)) this.#observer = new ChannelObserver(sight, this.#record);
  }

  /** What is known of the channel; undefined while it is not there. */
  get record(): SeenChannel | undefined {
    return this.#record;
  }

  /** Whether there are messages to be seen: it has had a publisher, and is still there. */
  get active(): boolean {
    return this.#observer !== null;
  }

  get missed(): number {
    return this.#missedBefore + (this.#observer?.missed ?? 0);
  }

  poll(withPayload: boolean): ObservedMessage[] {
    const messages = this.#observer?.poll(withPayload) ?? [];
    if (messages.length > 0) this.#heardAt = performance.now();
    return messages;
  }

  /** Looks whether the channel has other memory by now. Costs little where nothing happened. */
  async refresh(): Promise<void> {
    const counters = this.#countersNow();
    if (performance.now() - this.#dumpedAt < DUMP_EVERY_MS) return;
    if (counters === this.#counters && !await this.#isElsewhere()) return;
    this.#dumpedAt = performance.now();
    let sight;
    try {
      sight = await look(this.sight.source.socket, { timeoutMs: this.timeoutMs });
    } catch (error) {
      // Without a shadow what is mapped is followed on.
      if (error instanceof InspectError) return;
      throw error;
    }
    if (sight.kind === "shadow" && sight.dump.scb !== null && sight.failure === null) this.#use(sight);
    else sight[Symbol.dispose]();
  }

  async #isElsewhere(): Promise<boolean> {
    const now = performance.now(), quietMs = now - Math.max(this.#heardAt, this.#dumpedAt);
    if (quietMs < QUIET_MS || now - this.#askedAt < QUIET_MS) return false;
    this.#askedAt = now;
    const { source: { socket }, dump } = this.sight;
    const told = await askShadow(socket, deadlineIn(this.timeoutMs)).catch(() => undefined);
    if (told === undefined) return false;
    if (told === null) return quietMs >= QUIET_WITH_DUMP_MS;
    return told.sessionId !== 0n && told.sessionId !== dump.sessionId;
  }

  /** Goes on with a new sight, in the same memory where that is what the channel still has. */
  #use(sight: ShadowSight): void {
    const record = sight.dump.channels.get(this.channel);
    const same = record !== undefined && this.#record !== undefined &&
      record.ccb.stat().inode === this.#record.ccb.stat().inode &&
      record.info.numSlots === this.#record.info.numSlots;
    const old = this.sight, observer = this.#observer;
    this.sight = sight;
    this.#record = record;
    this.#counters = this.#countersNow();
    if (same && observer !== null) observer.goOn(sight, record);
    else {
      this.#missedBefore = this.missed;
      observer?.[Symbol.dispose]();
      // Of memory that is new, all is news.
      this.#observer = hasMemory(record) ? new ChannelObserver(sight, record, true) : null;
    }
    old[Symbol.dispose]();
  }

  /** The counters of this channel in the system control block; those of all others change without anything new here. */
  #countersNow(): string {
    const { scb } = this.sight.dump, id = this.#record?.info.channelId;
    if (scb === null) return "";
    const counters = new Uint8Array(id === undefined ? Scb.bytes : Scb.stride);
    scb.readAt((id ?? 0) * Scb.stride, counters);
    return counters.toHex();
  }

  [Symbol.dispose](): void {
    this.#observer?.[Symbol.dispose]();
    this.sight[Symbol.dispose]();
  }
}

/** A placeholder has none: it gets it with its first publisher. */
function hasMemory(record: SeenChannel | undefined): record is SeenChannel {
  return record !== undefined && record.info.numSlots > 0;
}
