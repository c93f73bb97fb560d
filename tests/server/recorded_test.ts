/** What the reference's server answers, ours answers: replayed from recordings, and live where its binaries are. */

import type { JsonValue } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { Server } from "../../server/server.ts";
import { startServer } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { cppFolder, mayRun, uniqueSocket } from "../program.ts";
import { type Conversation, converse } from "./recorded/conversation.ts";
import { removeLeftovers } from "./recorded/leftovers.ts";
import recordings from "./recorded/conversations.json" with { type: "json" };
import { RawClient } from "./raw_client.ts";

/**
 * Where ours says more: the reference does not know the slot size of a multiplexer before there is a buffer, and says
 * 0; ours says what the publisher asked for.
 */
function withoutUnknownSlotSizes(recorded: JsonValue | undefined, ours: JsonValue | undefined): void {
  if (recorded === null || typeof recorded !== "object" || ours === null || typeof ours !== "object") return;
  for (const [key, value] of Object.entries(recorded)) {
    const fields = ours as Record<string, JsonValue>;
    if (key === "slotSize" && value === 0) fields.slotSize = 0;
    else withoutUnknownSlotSizes(value, fields[key]);
  }
}

for (const { name, steps } of recordings as unknown as Conversation[]) {
  Deno.test(`the server answers as recorded: ${name}`, () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("recorded");
      await using _server = await Server.start({ socket });
      const answers = await converse(socket, steps);
      steps.forEach(({ client, request, response }, i) => {
        withoutUnknownSlotSizes(response, answers[i]);
        assert.deepEqual(answers[i], response, `${client}: ${JSON.stringify(request)}`);
      });
    }));
}

Deno.test({
  name: "the recordings are what the reference's server answers (needs SUBSPACE_CPP_BIN)",
  ignore: cppFolder === undefined || !mayRun,
  async fn() {
    for (const { name, steps } of recordings as unknown as Conversation[]) {
      const socket = uniqueSocket("recorded");
      await using _server = await startServer("cpp", socket);
      using client = new RawClient(socket);
      const { sessionId } = await client.request("init", { case: "init", value: {} });
      const answers = await converse(socket, steps);
      removeLeftovers(sessionId);
      steps.forEach(({ response }, i) => assert.deepEqual(answers[i], response, `${name}, ${i}`));
    }
  },
});
