import assert from "node:assert/strict";
import { LocalChannel } from "./local_channel.ts";
import type { Result, Task } from "./stress_worker.ts";

const mayStartWorkers = Deno.permissions.querySync({ name: "read" }).state === "granted";
const MESSAGES = 5000;

function run(task: Task): Promise<Result> {
  const worker = new Worker(new URL("./stress_worker.ts", import.meta.url), { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    worker.postMessage(task);
  });
}

Deno.test({
  name:
    "two reliable publishers and two reliable subscribers in threads lose nothing, with an unreliable one beside them" +
    " (starts workers: needs --allow-read)",
  ignore: !mayStartWorkers,
  async fn() {
    using channel = new LocalChannel({ numSlots: 8 });
    const { blocks, counters, registry, scb, sessionId } = channel;
    const publishers = [0, 1], reliable = [2, 3], unreliable = [4];
    const triggers = [0, 1, 2, 3, 4].map(() => channel.trigger().number);
    for (const id of [...reliable, ...unreliable]) {
      registry.addSubscriber(id, -1, true);
      counters.countSubscriber(1, reliable.includes(id));
    }
    const task = (role: Task["role"], id: number): Task => ({
      role,
      id,
      reliable: !unreliable.includes(id),
      shape: blocks.shape,
      sessionId,
      scbFd: scb.fd.number,
      ccbFd: blocks.ccbFd.number,
      bcbFd: blocks.bcbFd.number,
      ownTrigger: triggers[id],
      triggers: (role === "publisher" ? [...reliable, ...unreliable] : publishers).map((id) => triggers[id]),
      subscriberIds: [...reliable, ...unreliable],
      unreliableIds: unreliable,
      messages: MESSAGES,
      publishers: publishers.length,
      stop,
    });
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const beside = unreliable.map((id) => run(task("subscriber", id)));
    const results = await Promise.all([
      ...reliable.map((id) => run(task("subscriber", id))),
      ...publishers.map((id) => run(task("publisher", id))),
    ]);
    Atomics.store(stop, 0, 1);
    results.push(...await Promise.all(beside));
    assert.deepEqual(results.flatMap(({ failure }) => failure ?? []), []);
    for (const id of reliable) {
      const { messages, dropped } = results.find((result) => result.id === id)!;
      assert.deepEqual([messages, dropped], [2 * MESSAGES, 0]);
    }
    assert.equal(blocks.totals.messages, 2 * MESSAGES);
    assert(blocks.numBuffers > 1, "the slots grew meanwhile");
  },
});
