/** Who runs a server's data, as it says when it is connected to. */

import { closeAll, type Fd } from "../ffi/fd.ts";
import { SystemControlBlock } from "../shm/system_control_block.ts";
import { ProtocolError } from "../wire/connection.ts";
import { AnswerFds } from "./answer.ts";
import type { Answer } from "./server_link.ts";

/** What clients name message buffers after, and give them to. */
export interface Session {
  readonly id: bigint;
  readonly userId: number;
  readonly groupId: number;
  readonly scb: SystemControlBlock;
  /** Whether buffers may be registered although users have left: see `ChannelParts`. */
  readonly registersAlways: boolean;
  /** Whether it can be told that all has been claimed. */
  readonly removesUnclaimed: boolean;
}

/** The session that an answer to `Init` names, with the mapping of `before` where it is the same memory. */
export function openSession(answer: Answer, before: Session | null): Session {
  const { response } = answer.message;
  const fds = new AnswerFds(answer.fds, "connect");
  try {
    if (response.case !== "init") {
      throw new ProtocolError(`Cannot connect: the server answered ${response.case}`);
    }
    const { scbFdIndex, sessionId, userId, groupId, extensions } = response.value;
    const { registersAlways = false, removesUnclaimed = false } = extensions ?? {};
    const own = { id: sessionId, userId, groupId, registersAlways, removesUnclaimed };
    const fd = fds.take(scbFdIndex);
    if (before !== null && sameMemory(before.scb.fd, fd)) {
      fd.close();
      return { ...before, ...own };
    }
    const scb = SystemControlBlock.attach(fd);
    return { ...own, scb };
  } catch (error) {
    closeAll(answer.fds);
    throw error;
  } finally {
    fds.closeRest();
  }
}

/** Whether two fds are of the same file. */
export function sameMemory(a: Fd, b: Fd): boolean {
  const [x, y] = [a.stat(), b.stat()];
  return x.inode === y.inode && x.device === y.device;
}
