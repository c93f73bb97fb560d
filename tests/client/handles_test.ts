/** In what order a client makes known what it has. */

import assert from "node:assert/strict";
import { type Handle, Handles } from "../../client/handles.ts";
import type { Answer, Exchange, ServerLink } from "../../client/server_link.ts";
import { create } from "../../proto/message.ts";
import { ResponseSchema } from "../../proto/subspace.ts";

function handleOf(channel: string): Handle {
  return {
    channel,
    title: `subscriber on ${channel}`,
    createRequest: (keepId) => ({
      request: {
        case: "createSubscriber",
        value: { channelName: channel, subscriberId: keepId ? 0 : -1 },
      },
    }),
    adopt: () => true,
    removeRequest: () => ({ request: { case: "removeSubscriber", value: { channelName: channel } } }),
    release() {},
    fail: (reason) => assert.fail(reason),
  };
}

/** What each of some requests asks for. */
function wordsOf(exchanges: readonly Exchange[]): string[] {
  return exchanges.map(({ request: { request } }) => {
    assert(request?.case === "createSubscriber");
    return `${request.value.channelName} ${request.value.subscriberId === 0 ? "claimed" : "anew"}`;
  });
}

Deno.test("ids are claimed before anything is made anew, which may get one of them", () => {
  const link = { withdraw: () => false } as unknown as ServerLink;
  const handles = new Handles(link, () => {});
  handles.add(handleOf("/a"));
  handles.add(handleOf("/b"));
  // This server knows neither, and dies before it answers the first one's request.
  const [first, second] = handles.attach(false);
  assert.deepEqual(wordsOf([first, second]), ["/a anew", "/b anew"]);
  const answer: Answer = {
    message: create(ResponseSchema, { response: { case: "createSubscriber", value: {} } }),
    fds: [],
  };
  second.settle(answer);
  first.settle(new Error("it has ended"));
  assert.deepEqual(wordsOf(handles.attach(true)), ["/b claimed", "/a anew"]);
});
