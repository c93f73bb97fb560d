/** One user of a channel in a thread of its own, with an arena of its own. */

import { drain } from "../../ffi/eventfd.ts";
import { Fd } from "../../ffi/fd.ts";
import { pollSync } from "../../ffi/poll.ts";
import { ControlBlocks, type ControlBlockShape } from "../../shm/control_blocks.ts";
import { alwaysWritten } from "./local_channel.ts";
import { PublishingEnd } from "../../shm/publishing.ts";
import { ReadingEnd } from "../../shm/reading.ts";
import { SystemControlBlock } from "../../shm/system_control_block.ts";

/** What a worker is told. */
export interface Task {
  role: "publisher" | "subscriber";
  id: number;
  reliable: boolean;
  shape: ControlBlockShape;
  sessionId: bigint;
  scbFd: number;
  ccbFd: number;
  bcbFd: number;
  /** The worker's own eventfd, and those it wakes. */
  ownTrigger: number;
  triggers: number[];
  subscriberIds: number[];
  unreliableIds: number[];
  /** Messages of each publisher. */
  messages: number;
  publishers: number;
  /** Becomes 1 when unreliable subscribers may stop. */
  stop: Int32Array<SharedArrayBuffer>;
}

/** What it answers. */
export interface Result {
  id: number;
  messages: number;
  dropped: number;
  /** What it found wrong, null for nothing. */
  failure: string | null;
}

/** A wake-up that does not come in this time does not come. */
const PATIENCE_MS = 30_000;

function attach(task: Task) {
  const open = (number: number) => {
    const borrowed = Fd.adopt(number, "shared memory");
    return borrowed.duplicate();
  };
  const scb = SystemControlBlock.attach(open(task.scbFd));
  const blocks = ControlBlocks.attach(task.shape, scb.counters(0), open(task.ccbFd), open(task.bcbFd));
  const { sessionId, shape, id, reliable } = task;
  return { scb, blocks, end: { sessionId, resolvedName: shape.channelName, blocks, id, reliable } };
}

/** A message: its publisher and number, and the number again to its end. */
function publish(task: Task): Result {
  const { scb, blocks, end } = attach(task);
  using publisher = new PublishingEnd({ ...end, slotBytes: 64 });
  publisher.setSubscriberTriggers(task.triggers.map(alwaysWritten));
  const { numSubUpdates } = blocks.counters;
  publisher.subscriberKinds.setUnreliable(task.unreliableIds, numSubUpdates);
  // Else it would doubt that they have read, for as long as one of them has not begun, and nobody wakes it when that is over.
  publisher.subscriberKinds.trust(task.subscriberIds, numSubUpdates);
  for (let i = 0; i < task.messages; i++) {
    const words = 2 + i % 13 + (i === task.messages >> 1 ? 500 : 0);
    let buffer = publisher.buffer(4 * words);
    while (buffer === null) {
      drain(task.ownTrigger);
      buffer = publisher.buffer(4 * words);
      if (buffer === null && pollSync([task.ownTrigger], PATIENCE_MS).length === 0) {
        return { id: task.id, messages: i, dropped: 0, failure: `no slot for message ${i}, and no wake-up` };
      }
    }
    const message = new Int32Array(buffer.buffer, buffer.byteOffset, words).fill(i);
    message[0] = task.id;
    publisher.publish(4 * words);
  }
  publisher.close();
  blocks[Symbol.dispose]();
  scb[Symbol.dispose]();
  return { id: task.id, messages: task.messages, dropped: 0, failure: null };
}

function subscribe(task: Task): Result {
  const { scb, blocks, end } = attach(task);
  const expected = task.messages * task.publishers;
  const last = new Map<number, number>();
  let received = 0, dropped = 0, failure: string | null = null;
  const subscriber = new ReadingEnd({ ...end, maxActiveMessages: 2 });
  subscriber.setPublisherTriggers(task.reliable ? task.triggers.map(alwaysWritten) : []);
  while (failure === null && (task.reliable ? received < expected : Atomics.load(task.stop, 0) === 0)) {
    if (!subscriber.readNext()) {
      drain(task.ownTrigger);
      if (subscriber.mayHaveUnread) continue;
      const woken = pollSync([task.ownTrigger], task.reliable ? PATIENCE_MS : 50).length > 0;
      if (task.reliable && !woken) failure = `no wake-up after ${received} messages`;
      continue;
    }
    const { payload } = subscriber;
    const words = new Int32Array(payload.buffer, payload.byteOffset, payload.length / 4);
    const [publisher, number] = words, before = last.get(publisher) ?? -1;
    if (task.reliable ? number !== before + 1 : number <= before) {
      failure = `message ${number} after ${before}`;
    }
    if (words.subarray(2).some((word) => word !== number)) failure = `message ${number} is torn`;
    last.set(publisher, number);
    received++;
    dropped += subscriber.dropped;
    subscriber.release(subscriber.slotId);
  }
  subscriber[Symbol.dispose]();
  blocks[Symbol.dispose]();
  scb[Symbol.dispose]();
  return { id: task.id, messages: received, dropped, failure };
}

/** `self`, as it is in a worker. */
const worker = self as unknown as {
  onmessage: (event: MessageEvent<Task>) => void;
  postMessage(result: Result): void;
};

worker.onmessage = ({ data }) => {
  worker.postMessage(data.role === "publisher" ? publish(data) : subscribe(data));
  self.close();
};
