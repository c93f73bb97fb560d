/** A whole system as data: what a shadow or a server tells, what is in shared memory, and what programs say of themselves. */

import type { Inspection } from "./model.ts";
import { programsOf } from "./programs.ts";
import { viewOfServer } from "./server_view.ts";
import { viewOfDump } from "./shadow_view.ts";
import { type InspectOptions, look, type Sight } from "./sight.ts";
import { surroundingsNow } from "./surroundings.ts";

/**
 * Looks at a system through a socket.
 *
 * @param socket Abstract name of a shadow's or a server's socket.
 * @throws {InspectError} If nobody answers there, or not as a shadow or a server does.
 */
export async function inspect(socket: string, options: InspectOptions = {}): Promise<Inspection> {
  const looking = look(socket, options);
  const asking = programsOf([socket], { timeoutMs: options.timeoutMs ?? 5000, sight: looking });
  try {
    using sight = await looking;
    return { ...viewOf(sight), programs: await asking };
  } finally {
    await asking;
  }
}

/** What was told, as data; programs are not asked. Reads the shared memory again each time. */
export function viewOf(sight: Sight): Inspection {
  return sight.kind === "shadow"
    ? viewOfDump(sight.dump, sight.source, surroundingsNow(), sight)
    : viewOfServer(sight.answers, sight.source, surroundingsNow());
}
