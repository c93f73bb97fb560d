/** How workers connect. */

import { Client } from "../../mod.ts";

/** Connects to a server, with a doorbell page unless the benchmark is to do without. */
export function connect(socket: string, name: string): Promise<Client> {
  return Client.connect({ socket, name, doorbell: Deno.env.get("SUBSPACE_BENCH_DOORBELL") !== "false" });
}
