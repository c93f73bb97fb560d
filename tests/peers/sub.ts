/** What the reference's `sub` does, with our client: prints every message. */

import { Client } from "../../mod.ts";
import { parseFlags } from "./flags.ts";

const flag = parseFlags(Deno.args);
await using client = await Client.connect({ socket: flag("socket", "/tmp/subspace"), name: "sub" });
const subscriber = await client.createSubscriber(flag("channel", "test"), {
  reliable: flag("reliable", "false") === "true",
});
const decoder = new TextDecoder();
for await (const { ordinal, data } of subscriber) console.log(`Message ${ordinal}: ${decoder.decode(data)}`);
