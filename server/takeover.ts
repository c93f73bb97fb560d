/**
 * A server takes the place of a running one: who of the two is the server, at every moment. No I/O.
 *
 * The old server stops doing anything, and sends all that it has; at last two tokens, each an eventfd that holds 1.
 * Whoever reads the 1 out of one has it; the kernel sees to it that only one can. Who has the *baton* may touch the
 * memory. Who has the *fence* too is the server: the new one takes it when it is ready, the old one before it kills a new
 * one that has the baton and does not get any further. So each may give up on the other at any time, without asking,
 * however long either was stopped before. An end of the connection tells each that the other is gone, or has given up:
 *
 * | | the old server ... | the new one ... |
 * |---|---|---|
 * | before the new one has the baton | goes on | starts as if there were none, unless the old one holds the socket |
 * | after it took the baton, before the fence | goes on: nobody was served meanwhile | serves |
 * | after it took the fence | ends | serves |
 *
 * What the new one says when it serves only saves the old one from waiting for its time to be up.
 */

/** What makes one of two processes the server. */
export interface Token {
  /** Takes it; false where the other one has. */
  take(): boolean;
}

/** Both of them. */
export interface Tokens {
  readonly baton: Token;
  readonly fence: Token;
}

/** What the old server does next. */
export type PredecessorStep =
  /** Waits, for as long as it may again. */
  | "wait"
  /** Serves again: there is no other server, and none will be. */
  | "go on"
  /** Ends: the other one serves. */
  | "leave"
  /** Kills the other process, which cannot serve any more, and waits for its end. */
  | "kill";

/** The server that hands over. It serves nobody from the first moment to the last. */
export class Predecessor {
  #phase: "sending" | "offered" | "overdue" | "fenced" | "over" = "sending";
  #batonLost = false;

  constructor(private readonly tokens: Tokens) {}

  /** Whether the other one had the baton, and so may have touched what it was given. */
  get batonLost(): boolean {
    return this.#batonLost;
  }

  /** How far it is, for those who look. */
  get phase(): string {
    return this.#phase;
  }

  /** Everything is sent, and the tokens with it. */
  offered(): void {
    if (this.#phase === "sending") this.#phase = "offered";
  }

  /** The other one says that it serves. */
  acknowledged(): PredecessorStep {
    // While there is something to take, that is a lie.
    return this.tokens.baton.take() ? this.#end("go on") : this.#takeFence();
  }

  /** The connection has ended. */
  ended(): PredecessorStep {
    this.#batonLost = !this.tokens.baton.take();
    if (!this.#batonLost || this.#phase === "fenced" || this.tokens.fence.take()) return this.#end("go on");
    return this.#end("leave");
  }

  /** It has waited for as long as it may. */
  timeUp(): PredecessorStep {
    if (this.#phase === "sending" || this.tokens.baton.take()) return this.#end("go on");
    if (this.#phase !== "offered") return this.#takeFence();
    this.#phase = "overdue";
    return "wait";
  }

  #takeFence(): PredecessorStep {
    if (this.#phase !== "fenced" && !this.tokens.fence.take()) return this.#end("leave");
    this.#phase = "fenced";
    return "kill";
  }

  #end(step: PredecessorStep): PredecessorStep {
    this.#phase = "over";
    return step;
  }
}

/** It does not take over, and why. */
export interface Refusal {
  /** It starts as if there were no other one, unless the socket is in use; or it ends, and the other one goes on. */
  readonly step: "start" | "fail";
  readonly reason: string;
}

const TOO_LATE: Refusal = {
  step: "fail",
  reason: "it waited for as long as it may, and went on (--takeover_timeout)",
};

/** The server that takes over. */
export class Successor {
  #granted = false;

  /** The old server has agreed, and begins to send. */
  granted(): void {
    this.#granted = true;
  }

  /** Everything is here. Returns null where the memory may be touched from now on. */
  complete({ baton }: Tokens): Refusal | null {
    return baton.take() ? null : TOO_LATE;
  }

  /** The memory is ready too. Returns null where this is the server from now on. */
  prepared({ fence }: Tokens): Refusal | null {
    return fence.take() ? null : TOO_LATE;
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
