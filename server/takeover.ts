/**
 * A server takes the place of a running one: who of the two is the server, at every moment. No I/O.
 *
 * The old server stops doing anything, sends all that it has, and at last the baton: an eventfd that holds 1. Whoever
 * reads the 1 out of it is the server; the kernel sees to it that only one can. So each may give up on the other at any
 * time, without asking: the new one goes on if it gets the baton, the old one if it takes it back. An end of the
 * connection tells each that the other is gone, or has given up:
 *
 * | | the old server ... | the new one ... |
 * |---|---|---|
 * | before the new one has the baton | goes on | starts as if there were none, unless the old one holds the socket |
 * | after it took the baton, before it said so | goes on: nobody was served meanwhile | serves |
 * | after it said so | is gone already | serves |
 *
 * What is left is a new server that has taken the baton and then neither says so nor ends: it was stopped between two
 * instructions. It is fenced off (killed), and its end tells the old one to go on.
 */

/** What makes one of two processes the server. */
export interface Baton {
  /** Takes it; false where the other one has. */
  take(): boolean;
}

/** What the old server does next. */
export type PredecessorStep =
  /** Waits, for as long as it may again. */
  | "wait"
  /** Serves again: there is no other server, and none will be. */
  | "go on"
  /** Ends: the other one serves. */
  | "leave"
  /** Kills the other process, and waits for its end. */
  | "fence";

/** The server that hands over. It serves nobody from the first moment to the last. */
export class Predecessor {
  #phase: "sending" | "offered" | "overdue" | "over" = "sending";
  #batonLost = false;

  constructor(private readonly baton: Baton) {}

  /** Whether the other one had the baton, and so may have touched what it was given. */
  get batonLost(): boolean {
    return this.#batonLost;
  }

  /** Whether it waits only for what the other one, which has the baton, has to say. */
  get overdue(): boolean {
    return this.#phase === "overdue";
  }

  /** Everything is sent, and the baton with it. */
  offered(): void {
    if (this.#phase === "sending") this.#phase = "offered";
  }

  /** The other one says that it serves. */
  acknowledged(): PredecessorStep {
    // While the baton is still there, that is a lie.
    return this.#end(this.baton.take() ? "go on" : "leave");
  }

  /** The connection has ended. */
  ended(): PredecessorStep {
    this.#batonLost = !this.baton.take();
    return this.#end("go on");
  }

  /** It has waited for as long as it may. */
  timeUp(): PredecessorStep {
    if (this.#phase === "overdue") return "fence";
    if (this.#phase === "sending" || this.baton.take()) return this.#end("go on");
    this.#phase = "overdue";
    return "wait";
  }

  #end(step: PredecessorStep): PredecessorStep {
    this.#phase = "over";
    return step;
  }
}

/** What the new server does next. */
export type SuccessorStep = { readonly step: "serve" } | Refusal;

/** It does not take over, and why. */
export interface Refusal {
  /** It starts as if there were no other one, unless the socket is in use; or it ends, and the other one goes on. */
  readonly step: "start" | "fail";
  readonly reason: string;
}

/** The server that takes over. */
export class Successor {
  #granted = false;

  /** The old server has agreed, and begins to send. */
  granted(): void {
    this.#granted = true;
  }

  /** Everything is here, and ready to be used. */
  complete(baton: Baton): SuccessorStep {
    if (baton.take()) return { step: "serve" };
    return { step: "fail", reason: "it waited for as long as it may, and went on (--takeover_timeout)" };
  }

  /**
   * The connection has ended before that.
   *
   * @param detail What is known of why; null for nothing.
   */
  ended(detail: string | null): Refusal {
    const early = `the hand-over ended early${detail === null ? "" : `: ${detail}`}`;
    return {
      step: "start",
      reason: this.#granted
        ? early
        : "it closed the connection, as servers do that do not know how: those in C++, and older ones. Stop it first",
    };
  }

  /** It has waited for as long as it may. */
  timeUp(): Refusal {
    return { step: "fail", reason: "it did not hand over in time (--takeover_timeout)" };
  }
}
