/**
 * Records what the reference's server answers: `deno run -A tests/server/recorded/record.ts`, with
 * `SUBSPACE_CPP_BIN` naming the folder of its binaries. Writes `conversations.json`.
 */

import { startServer } from "../../deployment.ts";
import { uniqueSocket } from "../../program.ts";
import { type Conversation, converse, type Step } from "./conversation.ts";
import { RawClient } from "../raw_client.ts";
import { removeLeftovers } from "./leftovers.ts";
import { conversations } from "./conversations.ts";

const recorded: Conversation[] = [];
for (const [name, steps] of Object.entries(conversations)) {
  const socket = uniqueSocket("recorded");
  await using _server = await startServer("cpp", socket);
  using client = new RawClient(socket);
  const { sessionId } = await client.request("init", { case: "init", value: {} });
  const answers = await converse(socket, steps);
  removeLeftovers(sessionId);
  recorded.push({
    name,
    steps: steps.map((step, i): Step => answers[i] === undefined ? step : { ...step, response: answers[i] }),
  });
}
const lines = recorded.map(({ name, steps }) =>
  `{"name":${JSON.stringify(name)},"steps":[\n${steps.map((step) => JSON.stringify(step)).join(",\n")}\n]}`
);
Deno.writeTextFileSync(new URL("conversations.json", import.meta.url), `[\n${lines.join(",\n")}\n]\n`);
console.log(`recorded ${recorded.length} conversations`);
Deno.exit(0);
