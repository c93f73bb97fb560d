/** Whom an end of a channel tells: the other side's triggers, and the publishers that wait for retired slots. */

import { signal } from "../ffi/eventfd.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { nonBlockingWriteEnd } from "../ffi/pipe.ts";
import type { Trigger } from "../shm/doorbell.ts";
import type { AnswerFds } from "./answer.ts";

/** The triggers and retirement pipes that one answer brought. */
export class Peers implements Disposable {
  private constructor(
    /** Eventfds of the other side, each with its user. */
    readonly triggers: readonly Trigger[],
    readonly triggerFds: readonly Fd[],
    readonly retirementPipes: readonly Fd[],
  ) {}

  /** Nobody. */
  static none(): Peers {
    return new Peers([], [], []);
  }

  /**
   * Takes them out of an answer by their indexes.
   *
   * @param sleepers Of each trigger, 1 + the id of its user if that says when it sleeps, else 0; of none where the
   * server does not know of doorbells.
   */
  static take(
    fds: AnswerFds,
    triggerIndexes: readonly number[],
    sleepers: readonly number[],
    retirementPipes: readonly number[],
  ): Peers {
    const triggerFds = triggerIndexes.map((index) => fds.take(index));
    const pipes = retirementPipes.map((index) => fds.take(index));
    const triggers = triggerFds.map((fd, i) => ({ fdNumber: fd.number, sleeperId: (sleepers[i] ?? 0) - 1 }));
    return new Peers(triggers, triggerFds, pipes.map(nonBlockingWriteEnd));
  }

  get pipeNumbers(): number[] {
    return this.retirementPipes.map((fd) => fd.number);
  }

  /** Wakes everyone: something may have happened before their triggers were known here. */
  ring(): void {
    for (const { fdNumber } of this.triggers) signal(fdNumber);
  }

  [Symbol.dispose](): void {
    closeAll(this.triggerFds);
    closeAll(this.retirementPipes);
  }
}
