/** What a server that was taken over still has to do: let go. */

import { getLogger } from "@logtape/logtape";
import { closeAll } from "../ffi/fd.ts";
import { killProcess } from "../ffi/process.ts";
import type { System } from "../ffi/system.ts";
import type { Connection } from "../wire/connection.ts";
import { handOverCodec } from "../wire/hand_over.ts";

const log = getLogger(["subspace", "server"]);

/** The process that was the server. */
export interface FormerServer {
  readonly pid: number;
  /** Whether it ends with that, and may be killed where it does not. */
  readonly standalone: boolean;
}

/**
 * Waits until the old server has let go of what it handed over. While it is stopped it holds the listening socket: should
 * this server end, clients would wait for an answer of nobody, and no other server could start.
 *
 * @param connection To the old server, which closes it when it is done. Owned from now on.
 * @returns How not to wait any more.
 */
export function awaitRelease(
  connection: Connection,
  { pid, standalone }: FormerServer,
  patienceMs: number,
  system: System,
): Disposable {
  const end = () => {
    cancel();
    connection.onReadable = null;
    connection.close();
  };
  const cancel = system.after(patienceMs, () => {
    log.warning("Process {pid} was taken over, and still holds the listening socket: it is stopped", { pid });
    if (standalone && pid !== system.pid && !killProcess(pid)) {
      log.error("Failed to kill process {pid}, which was taken over and then stopped: kill it", { pid });
    }
    end();
  });
  const hear = () => {
    // It has nothing more to say.
    closeAll(connection.tryReceive(handOverCodec)?.fds ?? []);
    if (connection.closed) end();
  };
  connection.onReadable = hear;
  hear();
  return { [Symbol.dispose]: end };
}
