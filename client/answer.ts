/** Taking a server's answers apart, without trust. */

import { closeAll, type Fd } from "../ffi/fd.ts";
import type { Response } from "../proto/subspace_pb.ts";
import { ProtocolError } from "../wire/connection.ts";
import { RequestError } from "./errors.ts";
import type { Answer } from "./server_link.ts";

type OneAnswer = Response["response"];

/** The kinds of answers that may be a refusal: all but that to `Init`. */
export type AnswerKind = Exclude<NonNullable<OneAnswer["case"]>, "init">;

/** What an answer of a kind says. */
export type AnswerBody<Kind extends AnswerKind> = Extract<OneAnswer, { case: Kind }>["value"];

/** The fds of an answer, to be taken by the indexes in it. */
export class AnswerFds {
  readonly #left: (Fd | null)[];

  constructor(fds: readonly Fd[], readonly what: string) {
    this.#left = [...fds];
  }

  /** Takes an fd, which is the caller's then. Throws a `ProtocolError` where there is none, or none any more. */
  take(index: number): Fd {
    const fd = this.#left[index] ?? null;
    if (fd === null) {
      throw new ProtocolError(
        `Cannot ${this.what}: the server's answer names fd ${index} of ${this.#left.length}, or names it twice`,
      );
    }
    this.#left[index] = null;
    return fd;
  }

  closeRest(): void {
    for (const fd of this.#left) fd?.close();
  }
}

/**
 * Opens an answer. Fds that nobody takes are closed; if `use` throws, all are.
 *
 * @param what What was asked for, for errors: `create a publisher on /imu`.
 * @throws {RequestError} If the server refused.
 */
export function openAnswer<Kind extends AnswerKind, Result>(
  answer: Answer,
  kind: Kind,
  what: string,
  use: (body: AnswerBody<Kind>, fds: AnswerFds) => Result,
): Result {
  const fds = new AnswerFds(answer.fds, what);
  try {
    const { response } = answer.message;
    if (response.case !== kind) {
      throw new ProtocolError(`Cannot ${what}: the server answered ${response.case}`);
    }
    const body = response.value as AnswerBody<Kind>;
    if (body.error !== "") throw new RequestError(what, body.error);
    return use(body, fds);
  } catch (error) {
    closeAll(answer.fds);
    throw error;
  } finally {
    fds.closeRest();
  }
}
