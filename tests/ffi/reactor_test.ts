import assert from "node:assert/strict";
import { createEventFd, drain, signal } from "../../ffi/eventfd.ts";
import { Reactor, Ready } from "../../ffi/reactor.ts";

Deno.test("the reactor calls back when an fd becomes readable, and not after the watch is closed", async () => {
  const reactor = new Reactor();
  using fd = createEventFd();
  using other = createEventFd();
  let calls = 0;
  let wake = () => {};
  const watch = reactor.watch(fd, Ready.readable, () => {
    calls++;
    drain(fd.number);
    wake();
  });
  using _keep = reactor.watch(other, Ready.readable | Ready.edge, () => wake());
  const called = () => new Promise<void>((resolve) => wake = resolve);
  let next = called();
  signal(fd.number);
  await next;
  assert.equal(calls, 1);
  watch.close();
  watch.close();
  signal(fd.number);
  next = called();
  signal(other.number);
  await next;
  assert.equal(calls, 1);
});

Deno.test("a one-shot watch rests until it is armed again, and then reports what holds already", async () => {
  const reactor = new Reactor();
  using fd = createEventFd();
  let calls = 0;
  let wake = () => {};
  let called = new Promise<void>((resolve) => wake = resolve);
  using watch = reactor.watch(fd, Ready.readable | Ready.once, () => {
    calls++;
    wake();
  });
  signal(fd.number);
  await called;
  signal(fd.number);
  await new Promise((resolve) => setTimeout(resolve, 1));
  assert.equal(calls, 1);
  called = new Promise<void>((resolve) => wake = resolve);
  watch.rearm(Ready.readable | Ready.once);
  await called;
  assert.equal(calls, 2);
});

Deno.test("timers run although an fd is always ready", async () => {
  const reactor = new Reactor();
  using fd = createEventFd();
  signal(fd.number);
  let rounds = 0;
  using _watch = reactor.watch(fd, Ready.readable, () => rounds++);
  await new Promise((resolve) => setTimeout(resolve, 1));
  const before = rounds;
  await new Promise((resolve) => setTimeout(resolve, 1));
  assert(rounds > before, "the fd goes on being served between timers");
});

Deno.test("a reactor that watched nothing for a while starts again", async () => {
  const reactor = new Reactor();
  using fd = createEventFd();
  for (let round = 0; round < 3; round++) {
    await new Promise<void>((resolve) => {
      const watch = reactor.watch(fd, Ready.readable, () => {
        drain(fd.number);
        watch.close();
        resolve();
      });
      signal(fd.number);
    });
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
});

Deno.test("what is ready already is reported after watch() has returned, not before", async () => {
  const reactor = new Reactor();
  using fd = createEventFd();
  signal(fd.number);
  await new Promise<void>((resolve) => {
    const watch = reactor.watch(fd, Ready.readable, () => {
      watch.close();
      resolve();
    });
  });
});

Deno.test("a timer of a reactor calls back without any fd, also while it waits for a later one", async () => {
  const reactor = new Reactor(), called: string[] = [];
  const cancels = ["never", "cancelled"].map((name) => reactor.after(1e9, () => called.push(name)));
  await new Promise((resolve) => setTimeout(resolve, 1));
  await new Promise<void>((resolve) => void reactor.after(0, resolve));
  reactor.after(0, () => called.push("once"));
  await new Promise<void>((resolve) => void reactor.after(0, resolve));
  for (const cancel of cancels) cancel();
  assert.deepEqual(called, ["once"]);
});

Deno.test("timers of a reactor run although an fd is always ready, and fds are served between them", async () => {
  const reactor = new Reactor();
  using fd = createEventFd();
  signal(fd.number);
  let rounds = 0;
  using _watch = reactor.watch(fd, Ready.readable, () => rounds++);
  for (let i = 0; i < 3; i++) {
    const before = rounds;
    await new Promise<void>((resolve) => void reactor.after(1, resolve));
    assert(rounds > before);
  }
});

Deno.test("a timer that throws does not stop the others", async () => {
  const reactor = new Reactor();
  const reported = new Promise<string>((resolve) =>
    addEventListener("error", (event) => {
      event.preventDefault();
      resolve(event.message);
    }, { once: true })
  );
  reactor.after(0, () => {
    throw new Error("planted");
  });
  await new Promise<void>((resolve) => void reactor.after(0, resolve));
  assert.match(await reported, /planted/);
});
