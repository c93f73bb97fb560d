/**
 * What a shadow keeps: a complete copy of a server's state, while the next server's is still arriving, and what the
 * next server did not take over.
 *
 * Invariants: a copy that is complete is replaced only by one that is; what was in the old one and is not in the new
 * one is kept aside, until that happens again; an fd that is handed in is kept or closed. No I/O.
 */

import { closeAll, type Fd } from "../ffi/fd.ts";
import type { ShadowEvent } from "../proto/subspace_pb.ts";
import type { Incoming } from "../wire/connection.ts";
import { NOWHERE, type Position, samePosition } from "../wire/position.ts";
import type { StateDump } from "../wire/state_dump.ts";
import { Mirror, type Snapshot } from "./mirror.ts";

/** Events of a generation that may wait for its end. More is no server's state. */
const UNFINISHED_EVENTS_MAX = 1 << 20;

/** A generation whose server has not sent everything yet. */
interface Unfinished {
  /** Whether the server will say when it has. */
  readonly announced: boolean;
  readonly generation: bigint;
  /** Whether it comes from a server that took the state kept aside, so that what it replaces is not wanted any more. */
  readonly wentBack: boolean;
  /** `init`, and all since; null if there was nothing to keep meanwhile, and events are applied as they come. */
  readonly events: Incoming<ShadowEvent>[] | null;
}

/** Channels of one state that another one has not taken over; those of the server itself aside. */
function lostChannels(old: StateDump, next: StateDump): string[] {
  return [...old.channels.keys()].filter((name) =>
    !name.startsWith("/subspace/") && (old.sessionId !== next.sessionId || !next.channels.has(name))
  );
}

/**
 * Whether an event tells that a server of the reference's has sent all that it had. It sends channels, buffers and
 * users then, and nothing else (specification, section 3.2); its first act after that are publishers of its own, and
 * with each publisher and subscriber come options (section 3.4).
 */
function followsTheState({ event }: ShadowEvent): boolean {
  switch (event.case) {
    case "updateChannelOptions":
    case "removeChannel":
    case "removePublisher":
    case "removeSubscriber":
    case "unregisterClientBuffer":
      return true;
    default:
      return false;
  }
}

/** The copies of a shadow. */
export class Generations implements Disposable {
  readonly #mirror = new Mirror();
  #position = NOWHERE;
  #unfinished: Unfinished | null = null;
  #previous: StateDump | null = null;

  /** @param now Nanoseconds of the monotonic clock. */
  constructor(private readonly now: () => bigint) {}

  /** The newest complete copy, or what there is of the first one. For reading: it changes with the next event. */
  get state(): StateDump {
    return this.#mirror.state;
  }

  /** What the newest copy replaced and does not contain; null for nothing. */
  get previous(): StateDump | null {
    return this.#previous;
  }

  get position(): Position {
    return this.#position;
  }

  /** Whether a server is still sending what it has. */
  get filling(): boolean {
    return this.#unfinished !== null;
  }

  /** What has come of a copy that `state` will be when it is complete. */
  get unfinished(): { readonly events: readonly Incoming<ShadowEvent>[]; readonly wentBack: boolean } {
    return { events: this.#unfinished?.events ?? [], wentBack: this.#unfinished?.wentBack ?? false };
  }

  /** How many fds stay open only because a snapshot may show them. */
  get heldFds(): number {
    return this.#mirror.heldFds;
  }

  /** A copy of `state`, or of what is kept aside. Release it soon: fds that it shows stay open until then. */
  snapshot(previous = false): Snapshot {
    return this.#mirror.snapshot((previous ? this.#previous : null) ?? this.#mirror.state);
  }

  /**
   * Applies an event.
   *
   * @param fds Owned by this object from now on, also when it throws.
   * @param wentBack For `init`: whether the server took the state that is kept aside.
   * @throws {Error} If the event, or one that had to wait for it, makes no sense here.
   */
  apply(message: ShadowEvent, fds: readonly Fd[], wentBack = false): void {
    const { event, offset } = message;
    if (event.case === "init") {
      return this.#begin({ message, fds: [...fds] }, event.value.generation, wentBack);
    }
    if (event.case === "resume") return this.#goOn(event.value.generation);
    const unfinished = this.#unfinished;
    if (event.case === "stateComplete") {
      if (unfinished?.announced) this.#finish(unfinished, offset);
      return;
    }
    if (unfinished !== null && !unfinished.announced && followsTheState(message)) {
      this.#finish(unfinished, BigInt(unfinished.events?.length ?? 0));
    } else if (unfinished !== null && unfinished.events !== null) {
      return this.#keep(unfinished.events, { message, fds: [...fds] });
    }
    this.#position = { ...this.#position, offset: offset || this.#position.offset + 1n };
    this.#mirror.apply(message, fds);
  }

  /** A server that was recovered from this copy begins a generation of its own, with nothing in it yet. */
  #goOn(generation: bigint): void {
    this.abandon();
    if (generation > this.#position.generation) this.#position = { generation, offset: 0n, complete: true };
  }

  #keep(events: Incoming<ShadowEvent>[], incoming: Incoming<ShadowEvent>): void {
    if (events.length < UNFINISHED_EVENTS_MAX) return void events.push(incoming);
    closeAll(incoming.fds);
    throw new Error(`Cannot keep more than ${UNFINISHED_EVENTS_MAX} events of a state that is not complete`);
  }

  #begin(init: Incoming<ShadowEvent>, generation: bigint, wentBack: boolean): void {
    this.abandon();
    const announced = generation !== 0n;
    const empty = this.state.sessionId === 0n;
    this.#unfinished = {
      announced,
      generation: announced ? generation : this.now(),
      wentBack,
      events: empty ? null : [init],
    };
    if (!empty) return;
    this.#position = { ...NOWHERE, generation: this.#unfinished.generation };
    this.#mirror.apply(init.message, init.fds);
  }

  /** The unfinished generation is complete: it takes the place of the old one. */
  #finish({ generation, wentBack, events }: Unfinished, offset: bigint): void {
    this.#unfinished = null;
    this.#position = { generation, offset, complete: true };
    if (events === null) return;
    const old = this.#mirror.take();
    const failures: string[] = [];
    for (const { message, fds } of events) {
      try {
        this.#mirror.apply(message, fds);
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    if (wentBack) this.#setAside(null);
    if (!wentBack && lostChannels(old, this.state).length > 0) this.#setAside(old);
    else this.#mirror.drop(old);
    if (failures.length > 0) {
      throw new Error(
        `Cannot apply ${failures.length} of ${events.length} events of a server: ${failures[0]}`,
      );
    }
  }

  /**
   * Puts what is kept aside in the place of the newest copy, and that aside. It counts as newer than all others, so
   * that a server with several shadows recovers from it.
   *
   * @throws {Error} If nothing is kept aside.
   */
  rollBack(): void {
    if (this.#previous === null) throw new Error("nothing is kept aside");
    this.abandon();
    const newest = this.#mirror.swap(this.#previous);
    this.#previous = newest;
    this.#position = { generation: this.now(), offset: 0n, complete: true };
  }

  /**
   * Lets go of what is kept aside.
   *
   * @throws {Error} If nothing is.
   */
  forget(): void {
    if (this.#previous === null) throw new Error("nothing is kept aside");
    this.#setAside(null);
  }

  /** Keeps the newest copy aside, whatever it is, and begins with nothing: for what is read back. */
  putAside(): void {
    this.abandon();
    this.#setAside(this.#mirror.take());
    this.#position = NOWHERE;
  }

  #setAside(state: StateDump | null): void {
    if (this.#previous !== null) this.#mirror.drop(this.#previous);
    this.#previous = state;
  }

  /**
   * Checks that a server that goes on from a position finds it here.
   *
   * @param generation Of the server. Not one that is older than the position's.
   * @throws {Error} If the copy here is at another one.
   */
  checkResumable(position: Position, generation = position.generation): void {
    const text = ({ generation, offset }: Position) => `generation ${generation}, offset ${offset}`;
    if (generation < position.generation) {
      throw new Error(`Cannot resume at ${text(position)} in generation ${generation}, which is older`);
    }
    if (!this.filling && position.complete && samePosition(position, this.#position)) return;
    throw new Error(`Cannot resume at ${text(position)}: the copy here is at ${text(this.#position)}`);
  }

  /** The server is gone. What it did not finish is worth less than what was there before. */
  abandon(): void {
    for (const { fds } of this.#unfinished?.events ?? []) closeAll(fds);
    this.#unfinished = null;
  }

  /** Forgets everything. */
  [Symbol.dispose](): void {
    this.abandon();
    this.#setAside(null);
    this.#mirror[Symbol.dispose]();
  }
}
