import { Client } from "../../mod.ts";
import { Server } from "../../server/server.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { featureCases } from "./feature_cases.ts";

for (const [name, run] of Object.entries(featureCases)) {
  Deno.test(name, () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("features");
      const server = await Server.start({ socket, local: true });
      try {
        await using client = await Client.connect({ socket });
        await run(client);
      } finally {
        await server.stop();
      }
    }));
}
