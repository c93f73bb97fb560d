/** Whom an end of a channel tells: the other side's triggers, and the publishers that wait for retired slots. */

import { signal } from "../ffi/eventfd.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { nonBlockingWriteEnd } from "../ffi/pipe.ts";
import type { AnswerFds } from "./answer.ts";

/** The triggers and retirement pipes that one answer brought. */
export class Peers implements Disposable {
  private constructor(readonly triggers: readonly Fd[], readonly retirementPipes: readonly Fd[]) {}

  /** Nobody. */
  static none(): Peers {
    return new Peers([], []);
  }

  /** Takes them out of an answer by their indexes. */
  static take(fds: AnswerFds, triggers: readonly number[], retirementPipes: readonly number[]): Peers {
    const taken = [triggers.map((index) => fds.take(index)), retirementPipes.map((index) => fds.take(index))];
    return new Peers(taken[0], taken[1].map(nonBlockingWriteEnd));
  }

  get triggerNumbers(): number[] {
    return this.triggers.map((fd) => fd.number);
  }

  get pipeNumbers(): number[] {
    return this.retirementPipes.map((fd) => fd.number);
  }

  /** Wakes everyone: something may have happened before their triggers were known here. */
  ring(): void {
    for (const trigger of this.triggers) signal(trigger.number);
  }

  [Symbol.dispose](): void {
    closeAll(this.triggers);
    closeAll(this.retirementPipes);
  }
}
