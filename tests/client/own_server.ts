/** Cases of clients, each with a server of ours to itself. */

import { Client } from "../../mod.ts";
import { Server } from "../../server/server.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";

/** Makes a test of each case. It gets a client, and what makes others. */
export function testWithOwnServer(
  cases: Readonly<Record<string, (client: Client, connect: () => Promise<Client>) => Promise<void>>>,
): void {
  for (const [name, run] of Object.entries(cases)) {
    Deno.test(name, () =>
      withBalancedFds(async () => {
        const socket = uniqueSocket("client");
        const server = await Server.start({ socket, local: true });
        try {
          const connect = () => Client.connect({ socket, name: "case" });
          await using client = await connect();
          await run(client, connect);
        } finally {
          await server.stop();
        }
      }));
  }
}
