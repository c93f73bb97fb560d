/**
 * A shadow's state in the keeping of its service manager, so that the shadow too may be killed.
 *
 * The state is what its events add up to. So the events are what is kept: in a journal, a memory file that the manager
 * has an fd of, next to the fds that came with them, each by the name that tells open files apart. A shadow that is
 * started again gets all of these back and applies the journal.
 *
 * Invariants: the manager does what it is told in order, and is told of fds before the journal that names them, and of
 * what can go after the journal that does not; so at whatever moment the shadow dies, some journal is whole that has
 * its fds. A journal without the last events is as good as a shadow that was away for a moment: its server sends them
 * again. Nobody waits for the manager.
 */

import { getLogger } from "@logtape/logtape";
import { SystemError } from "../ffi/errno.ts";
import { duplicateAll, type Fd } from "../ffi/fd.ts";
import { identityOf } from "../ffi/fd_identity.ts";
import { createFile } from "../ffi/memory_object.ts";
import { operatingSystem, type Timers } from "../ffi/system.ts";
import type { ShadowEvent } from "../proto/subspace_pb.ts";
import { create, toBinary } from "../proto/message.ts";
import { ShadowEventSchema } from "../proto/subspace.ts";
import { channelEvents, channelFds, type StateDump } from "../wire/state_dump.ts";
import type { Position } from "../wire/position.ts";
import { fdCount, shadowEventCodec, type ShadowEventInit } from "../wire/shadow_link.ts";
import type { Generations } from "./generations.ts";
import { type Frame, frameOf, framesOf } from "./journal.ts";

const log = getLogger(["subspace", "shadow"]);

/** Who keeps fds beyond this process's life. */
export interface Keeper {
  /** Keeps an fd by a name, or the one it has of that name. Returns false where it has no time for that now. */
  keep(name: string, fd: Fd): boolean;
  /** Forgets the fd of a name. Returns false where it has no time for that now. */
  forget(name: string): boolean;
}

/** Errands that the keeper has had no time for. More, and all is kept anew when it has. */
const ERRANDS_MAX = 4096;
/** How soon it is tried again. */
const RETRY_MS = 5;
/** A journal is begun anew when it is this much longer than it began, and than twice that. */
const JOURNAL_GROWTH_BYTES = 256 * 1024;
/** Likewise, when it names so many more fds. */
const NAMES_GROWTH = 256;
/** Where a state is that is set aside at once. */
const BEFORE = { generation: 1n, offset: 0n, complete: true };
/** No event, which no server sends: the state so far is what is kept aside. */
const ASIDE: Frame = { event: new Uint8Array(), names: [], wentBack: false };
const JOURNAL_NAME = /^journal-(\d+)$/;

interface Errand {
  readonly name: string;
  /** null: to be forgotten. */
  readonly fd: Fd | null;
}

/** Keeps a journal of what a shadow is told. */
export class FdStore implements Disposable {
  #journal: Fd | null = null;
  #number: number;
  #bytes = 0;
  #bytesAtBegin = 0;
  /** What the keeper has, or is to have, or may have. */
  readonly #names = new Set<string>();
  #namesAtBegin = 0;
  #errands: Errand[] = [];
  /** Whether errands were dropped: then the journal is worth nothing. */
  #behind = false;
  #cancelRetry: (() => void) | null = null;

  /** @param names What the keeper has from before. */
  constructor(
    private readonly keeper: Keeper,
    names: Iterable<string> = [],
    private readonly timers: Timers = operatingSystem,
  ) {
    for (const name of names) this.#names.add(name);
    this.#number = Math.max(0, ...[...this.#names].map((name) => Number(name.match(JOURNAL_NAME)?.[1] ?? 0)));
  }

  /** Fds that wait to be kept or forgotten. */
  get queued(): number {
    return this.#errands.length;
  }

  /**
   * Notes an event, before it is applied.
   *
   * @param fds They stay the caller's.
   */
  note(message: ShadowEvent, fds: readonly Fd[], wentBack: boolean): void {
    if (this.#journal === null || this.#behind) return;
    this.#attempt(() => this.#append(message, fds, wentBack));
  }

  /** Begins the journal anew where it is much longer than what is kept. After each event. */
  tidy(generations: Generations): void {
    if (generations.filling || this.#errands.length > 0) return;
    const long = this.#bytes > 2 * this.#bytesAtBegin + JOURNAL_GROWTH_BYTES;
    const stale = this.#names.size > 2 * this.#namesAtBegin + NAMES_GROWTH;
    if (this.#journal === null || this.#behind || long || stale) this.begin(generations);
  }

  /** Begins a journal with the state as it is. */
  begin({ state, previous, position, unfinished }: Generations): void {
    this.#attempt(() => {
      this.#behind = false;
      const last = this.#journal;
      this.#journal = createFile("subspace-shadow-journal");
      this.#bytes = 0;
      if (previous !== null) {
        this.#appendState(previous, BEFORE);
        this.#write(ASIDE);
      }
      this.#appendState(state, position);
      const { events, wentBack } = unfinished;
      for (const { message, fds } of events) this.#append(message, fds, wentBack);
      const name = `journal-${++this.#number}`;
      this.#keep(name, this.#journal);
      last?.close();
      const fds = [
        ...[state, previous].flatMap((dump) => dump === null ? [] : fdsOfState(dump)),
        ...events.flatMap((event) => event.fds),
      ];
      const live = new Set([name, ...fds.map((fd) => identityOf(fd))]);
      for (const stale of this.#names) if (!live.has(stale)) this.#forget(stale);
      this.#bytesAtBegin = this.#bytes;
      this.#namesAtBegin = this.#names.size;
    });
  }

  /** What fails here costs the copy of the copy, and nothing else. */
  #attempt(what: () => void): void {
    try {
      what();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#giveUp(error.message);
    }
  }

  #giveUp(reason: string): void {
    if (!this.#behind) {
      log.warning("Shadow: cannot leave its state with the service manager: {reason}", { reason });
    }
    this.#behind = true;
    for (const { name, fd } of this.#dropErrands()) {
      if (fd === null) this.#names.add(name);
      else this.#names.delete(name);
    }
  }

  #dropErrands(): Errand[] {
    const dropped = this.#errands;
    for (const { fd } of dropped) fd?.close();
    this.#errands = [];
    return dropped;
  }

  #appendState(
    { sessionId, scb, channels }: StateDump,
    { generation, offset, complete }: Position,
  ): void {
    if (scb === null) return;
    const write = (init: ShadowEventInit, fds: readonly Fd[] = []) =>
      this.#append(create(ShadowEventSchema, init), fds, false);
    write({ event: { case: "init", value: { sessionId, generation } } }, [scb]);
    for (const channel of channels.values()) {
      for (const [event, fds] of channelEvents(channel)) write(event, fds);
    }
    if (complete) write({ event: { case: "stateComplete", value: {} }, offset });
  }

  #append(message: ShadowEvent, fds: readonly Fd[], wentBack: boolean): void {
    const names = fds.map((fd) => {
      // Without a name it is not found again: the journal is good up to here.
      const name = identityOf(fd) ?? "";
      if (name !== "") this.#keep(name, fd);
      return name;
    });
    this.#write({ event: toBinary(ShadowEventSchema, message), names, wentBack });
  }

  #write(frame: Frame): void {
    const bytes = frameOf(frame);
    this.#journal!.writeAt(this.#bytes, bytes);
    this.#bytes += bytes.length;
  }

  #keep(name: string, fd: Fd): void {
    if (this.#names.has(name)) return;
    this.#names.add(name);
    this.#send({ name, fd });
  }

  #forget(name: string): void {
    this.#names.delete(name);
    this.#send({ name, fd: null });
  }

  #send(errand: Errand): void {
    if (this.#errands.length === 0 && this.#run(errand)) return;
    if (this.#errands.length >= ERRANDS_MAX) return this.#giveUp("it does not answer");
    this.#errands.push({ ...errand, fd: errand.fd?.duplicate() ?? null });
    this.#cancelRetry ??= this.timers.after(RETRY_MS, () => this.#runAll());
  }

  #run({ name, fd }: Errand): boolean {
    return fd === null ? this.keeper.forget(name) : this.keeper.keep(name, fd);
  }

  #runAll(): void {
    this.#cancelRetry = null;
    let done = 0;
    while (done < this.#errands.length && this.#run(this.#errands[done])) this.#errands[done++].fd?.close();
    this.#errands.splice(0, done);
    if (this.#errands.length > 0) this.#cancelRetry = this.timers.after(RETRY_MS, () => this.#runAll());
  }

  /** Stops keeping. What the keeper has, it keeps. */
  [Symbol.dispose](): void {
    this.#cancelRetry?.();
    this.#dropErrands();
    this.#journal?.close();
  }
}

function fdsOfState({ scb, channels }: StateDump): Fd[] {
  return [...(scb === null ? [] : [scb]), ...[...channels.values()].flatMap(channelFds)];
}

/**
 * Applies the newest journal of those that a keeper kept.
 *
 * @param kept By their names. They stay the caller's.
 * @returns How many events it had.
 */
export function restore(kept: ReadonlyMap<string, Fd>, generations: Generations): number {
  const numbers = [...kept.keys()].flatMap((name) => Number(name.match(JOURNAL_NAME)?.[1] ?? []));
  if (numbers.length === 0) return 0;
  let events = 0;
  for (const frame of framesOf(kept.get(`journal-${Math.max(...numbers)}`)!)) {
    if (!apply(frame, kept, generations)) break;
    events++;
  }
  // Whoever was sending is not connected any more.
  generations.abandon();
  return events;
}

/** Returns false where the journal cannot be followed any further. */
function apply(
  { event, names, wentBack }: Frame,
  kept: ReadonlyMap<string, Fd>,
  generations: Generations,
): boolean {
  if (event.length === 0) {
    generations.putAside();
    return true;
  }
  const fds = names.flatMap((name) => kept.get(name) ?? []);
  let message: ShadowEvent, duplicates: Fd[];
  try {
    message = shadowEventCodec.decode(event);
    if (fds.length !== fdCount(message)) return false;
    duplicates = duplicateAll(fds);
  } catch (error) {
    log.warning("Shadow: cannot take more back from the service manager: {reason}", {
      reason: (error as Error).message,
    });
    return false;
  }
  try {
    generations.apply(message, duplicates, wentBack);
  } catch (error) {
    // As it did when it came.
    log.debug("Shadow: event handling failed: {reason}", { reason: (error as Error).message });
  }
  return true;
}
