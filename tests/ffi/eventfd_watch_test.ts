/** Watching eventfds: no pull is missed, whoever watches. */

import assert from "node:assert/strict";
import { createEventFd, drain, signal } from "../../ffi/eventfd.ts";
import { EventFdWatch } from "../../ffi/eventfd_watch.ts";
import type { Fd } from "../../ffi/fd.ts";
import { withBalancedFds } from "../open_fds.ts";

/** Pulls after which a watch has left the reactor, if it ever does. */
const MANY = 100;
/** Until it must have, however busy the machine is. */
const PULLS_MAX = 100_000;

/** A watch, and how to wait for its next call. */
class Stage implements Disposable {
  readonly fd: Fd = createEventFd();
  readonly watch: EventFdWatch;
  calls = 0;
  #next = Promise.withResolvers<void>();

  constructor(mayEmpty: boolean) {
    this.watch = new EventFdWatch(this.fd, mayEmpty, () => {
      this.calls++;
      this.#next.resolve();
      this.#next = Promise.withResolvers();
    });
  }

  async pull(): Promise<void> {
    const called = this.#next.promise;
    signal(this.fd.number);
    await called;
  }

  [Symbol.dispose](): void {
    this.watch.close();
    this.fd.close();
  }
}

/** Resolves when another eventfd's pull was reported that came later. */
async function othersWereServed(): Promise<void> {
  for (const mayEmpty of [true, false]) {
    using other = new Stage(mayEmpty);
    for (let i = 0; i < MANY; i++) await other.pull();
  }
}

Deno.test("Deno's event loop takes a watch over, and empties the eventfd; without it this test fails, and nothing else", () =>
  withBalancedFds(async () => {
    using stage = new Stage(true);
    for (let i = 0; i < PULLS_MAX; i++) {
      await stage.pull();
      if (!drain(stage.fd.number)) return;
    }
    assert.fail("this Deno has no such handles, or they do not work as they did");
  }));

Deno.test("an eventfd that others go by is not emptied", () =>
  withBalancedFds(async () => {
    using stage = new Stage(false);
    for (let i = 0; i < MANY; i++) {
      await stage.pull();
      assert(drain(stage.fd.number));
    }
  }));

for (const mayEmpty of [true, false]) {
  Deno.test(`each of many pulls is reported, ${mayEmpty ? "emptying" : "not"}`, () =>
    withBalancedFds(async () => {
      using stage = new Stage(mayEmpty);
      for (let i = 0; i < MANY; i++) await stage.pull();
      assert(stage.calls >= MANY);
    }));

  Deno.test(`a watch that rests reports nothing, and then what it missed, ${mayEmpty ? "emptying" : "not"}`, () =>
    withBalancedFds(async () => {
      using stage = new Stage(mayEmpty);
      for (let i = 0; i < MANY; i++) await stage.pull();
      for (let i = 0; i < 3; i++) {
        stage.watch.pause();
        const { calls } = stage;
        const pulled = stage.pull();
        await othersWereServed();
        assert.equal(stage.calls, calls);
        stage.watch.resume();
        await pulled;
      }
    }));

  Deno.test(`a watch that was closed reports nothing, ${mayEmpty ? "emptying" : "not"}`, () =>
    withBalancedFds(async () => {
      using stage = new Stage(mayEmpty);
      for (let i = 0; i < MANY; i++) await stage.pull();
      const { calls } = stage;
      signal(stage.fd.number);
      stage.watch.close();
      stage.watch.close();
      await othersWereServed();
      assert.equal(stage.calls, calls);
    }));
}
