import assert from "node:assert/strict";
import { TimerQueue } from "../../ffi/timer_queue.ts";

function queueOf(...lengths: number[]) {
  const queue = new TimerQueue(), called: number[] = [];
  const cancels = lengths.map((ms, i) => queue.set(i, ms, () => called.push(i)));
  const run = (now: number) => {
    for (const { callback } of queue.take(now)) callback?.();
    return called.splice(0);
  };
  return { queue, cancels, run };
}

Deno.test("timers are due in the order of their times, whatever their lengths", () => {
  const { queue, run } = queueOf(10, 5, 10, 0, 5);
  assert.equal(queue.nextDue, 3);
  assert.deepEqual(run(2), []);
  assert.deepEqual(run(6), [3, 1]);
  assert.equal(queue.nextDue, 9);
  assert.deepEqual(run(100), [4, 0, 2]);
  assert(queue.empty);
  assert.equal(queue.nextDue, Infinity);
});

Deno.test("a timer that is cancelled is not due, even if it was taken out already", () => {
  const { queue, cancels, run } = queueOf(10, 10, 20);
  cancels[0]();
  cancels[0]();
  assert.equal(queue.nextDue, 11);
  const due = queue.take(100);
  cancels[2]();
  assert.deepEqual(due.map(({ callback }) => callback === null), [false, true]);
  assert.deepEqual(run(1000), []);
  assert(queue.empty);
});

Deno.test("a timer that is set while others are called waits for the next time", () => {
  const queue = new TimerQueue();
  let calls = 0;
  const again = () => {
    calls++;
    queue.set(0, 0, again);
  };
  queue.set(0, 0, again);
  for (const round of [1, 2, 3]) {
    for (const { callback } of queue.take(round)) callback?.();
    assert.equal(calls, round);
  }
});
