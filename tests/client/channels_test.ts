/** Virtual channels and subscriber queues with our server. */

import { Client } from "../../mod.ts";
import { Server } from "../../server/server.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { channelCases } from "./channel_cases.ts";

for (const [name, run] of Object.entries(channelCases)) {
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
