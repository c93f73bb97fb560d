import assert from "node:assert/strict";
import { createEventFd, drain, signal } from "../../ffi/eventfd.ts";
import { EventFdWatch } from "../../ffi/eventfd_watch.ts";
import type { Fd } from "../../ffi/fd.ts";
import { LoopWatch } from "../../ffi/loop_watch.ts";
import { openFds, withBalancedFds } from "../open_fds.ts";

/** Pulls after which a watch has left the reactor, if it ever does. */
const MANY = 100;

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

for (const mayEmpty of [true, false]) {
  Deno.test(`each pull of an eventfd that may ${mayEmpty ? "" : "not "}be emptied is reported`, () =>
    withBalancedFds(async () => {
      using stage = new Stage(mayEmpty);
      for (let i = 0; i < MANY; i++) await stage.pull();
      assert.equal(drain(stage.fd.number), !mayEmpty);
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

Deno.test("Deno's event loop waits for eventfds: else the reactor does, and this test tells", async () => {
  await othersWereServed();
  using fd = createEventFd();
  const before = openFds().length;
  await new Promise<void>((resolve, reject) => {
    const failed = () => reject(new Error("it failed"));
    const watch = LoopWatch.start(fd, () => {
      watch!.close();
      resolve();
    }, failed);
    assert(watch !== null, "this Deno cannot: FFI, or Node's handles, are not what they were");
    signal(fd.number);
  });
  assert.equal(openFds().length, before);
  assert.equal(drain(fd.number), false, "it was emptied");
});
