import { Client } from "../../mod.ts";
import { Server } from "../../server/server.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { splitCases } from "./split_cases.ts";

for (const [name, run] of Object.entries(splitCases)) {
  Deno.test(name, () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("split");
      const server = await Server.start({ socket, local: true });
      try {
        const connect = () => Client.connect({ socket });
        await using client = await connect();
        await run(client, connect);
      } finally {
        await server.stop();
      }
    }));
}
