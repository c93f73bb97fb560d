import assert from "node:assert/strict";
import { LoopMonitor } from "../../ffi/loop_monitor.ts";
import { numOpenFds } from "../../ffi/resource_limits.ts";
import { createEventFd } from "../../ffi/eventfd.ts";

Deno.test("a stall of the event loop is counted with its length, and the worst is kept", () => {
  using monitor = new LoopMonitor();
  for (const lateMs of [0, 24, 30, 120, 60]) monitor.note(lateMs);
  assert.deepEqual([monitor.stalls, monitor.stalledMs, monitor.worstMs], [3, 210, 120]);
});

Deno.test("whoever keeps the event loop from its work is noticed", async () => {
  using monitor = new LoopMonitor();
  while (monitor.stalls === 0) {
    monitor.touch();
    const end = performance.now() + 150;
    while (performance.now() < end);
    await new Promise((resolve) => setTimeout(resolve));
  }
  assert(monitor.stalledMs >= 25 && monitor.worstMs <= monitor.stalledMs);
});

Deno.test("where nothing happens nothing is looked at", () => {
  const due: (() => void)[] = [];
  let nowMs = 0;
  const after = (ms: number, callback: () => void) => {
    due.push(() => {
      nowMs += ms;
      callback();
    });
    return () => {};
  };
  using monitor = new LoopMonitor({ after, monotonicMs: () => nowMs });
  assert.equal(due.length, 0);
  monitor.touch();
  monitor.touch();
  assert.equal(due.length, 1);
  monitor.touch();
  due.shift()!();
  assert.equal(due.length, 1);
  due.shift()!();
  assert.equal(due.length, 0);
  monitor.touch();
  nowMs += 500;
  due.shift()!();
  assert.deepEqual([monitor.stalls, monitor.worstMs], [1, 500]);
});

Deno.test("open fds are counted", () => {
  const before = numOpenFds();
  using _one = createEventFd();
  using _other = createEventFd();
  assert.equal(numOpenFds(), before + 2);
});
