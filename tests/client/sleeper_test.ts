/** Sleeping without the event loop: no pull is missed, and none counts twice. */

import assert from "node:assert/strict";
import { Sleeper, Woken } from "../../client/sleeper.ts";
import { createEventFd, drain, signal } from "../../ffi/eventfd.ts";
import { socketPair } from "../../ffi/unix_socket.ts";
import { sendMessage } from "../../ffi/message.ts";

/** Milliseconds that a sleep takes. */
function slept(sleep: () => void): number {
  const start = performance.now();
  sleep();
  return performance.now() - start;
}

/** Longer than any test takes: a sleep that lasts so long was not ended. */
const LONG_MS = 60_000;

Deno.test("a sleep ends when the trigger was pulled before, once for all pulls", () => {
  using trigger = createEventFd(), sleeper = new Sleeper();
  for (let i = 0; i < 3; i++) {
    signal(trigger.number);
    signal(trigger.number);
    assert(slept(() => assert.equal(sleeper.sleep(trigger, null, LONG_MS), 0)) < LONG_MS);
    assert(
      slept(() => assert.equal(sleeper.sleep(trigger, null, 5), 0)) >= 5,
      "the pulls were taken already",
    );
  }
});

Deno.test("a sleep tells of news from the server, and of another server's", () => {
  using trigger = createEventFd(), sleeper = new Sleeper();
  for (let i = 0; i < 2; i++) {
    const [socket, server] = socketPair();
    assert.equal(sleeper.sleep(trigger, socket, 0), 0);
    sendMessage(server, new Uint8Array(1));
    assert.equal(sleeper.sleep(trigger, socket, LONG_MS), Woken.bySocket);
    server.close();
    assert.equal(sleeper.sleep(trigger, socket, LONG_MS), Woken.bySocket, "it hung up");
    socket.close();
    assert.equal(sleeper.sleep(trigger, null, 0), 0);
  }
});

Deno.test("a sleep goes by the trigger that replaced another", () => {
  using sleeper = new Sleeper();
  const first = createEventFd();
  sleeper.sleep(first, null, 0);
  first.close();
  using second = createEventFd();
  signal(second.number);
  assert(slept(() => sleeper.sleep(second, null, LONG_MS)) < LONG_MS);
});

Deno.test("a sleep ends for another fd too, as long as that is readable", () => {
  using trigger = createEventFd(), other = createEventFd(), sleeper = new Sleeper();
  assert.equal(sleeper.sleep(trigger, null, 0, other.number), 0);
  signal(other.number);
  for (let i = 0; i < 2; i++) {
    assert.equal(sleeper.sleep(trigger, null, LONG_MS, other.number), Woken.byOther);
  }
  drain(other.number);
  signal(trigger.number);
  assert.equal(sleeper.sleep(trigger, null, LONG_MS, other.number), 0);
});
