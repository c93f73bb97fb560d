import assert from "node:assert/strict";
import { drain } from "../../ffi/eventfd.ts";
import type { Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { arena } from "../../shm/arena.ts";
import { ControlBlocks } from "../../shm/control_blocks.ts";
import { Ringer, SleepFlag } from "../../shm/doorbell.ts";
import { Bcb } from "../../shm/layout.ts";
import { RingerStruct } from "../../shm/structs.ts";
import { alwaysWritten, LocalChannel, receive, send } from "./local_channel.ts";

/** What an eventfd was written since the last time. */
const written = (triggers: readonly Fd[]) => triggers.map((fd) => drain(fd.number));

/** A channel with subscribers that say when they sleep. */
class Sleepers implements Disposable {
  readonly channel = new LocalChannel();
  readonly triggers = [1, 2, 3].map(() => this.channel.trigger());
  readonly flags = [1, 2, 3].map((id) => new SleepFlag(this.channel.blocks, "subscribers", id));
  readonly ringer = new Ringer(this.channel.blocks, "subscribers");

  constructor(known = [1, 2, 3]) {
    this.know(known);
  }

  know(ids: readonly number[]): void {
    this.ringer.setTriggers(ids.map((id) => ({ fdNumber: this.triggers[id - 1].number, sleeperId: id })));
  }

  ring(): boolean[] {
    this.ringer.ring();
    return written(this.triggers);
  }

  [Symbol.dispose](): void {
    this.ringer[Symbol.dispose]();
    this.channel[Symbol.dispose]();
  }
}

Deno.test("an eventfd is written to wake a sleeper, once, and for nobody who is awake", () => {
  using sleepers = new Sleepers();
  assert.deepEqual(sleepers.ring(), [false, false, false]);
  sleepers.flags[1].fallAsleep();
  assert.deepEqual(sleepers.ring(), [false, true, false]);
  assert.deepEqual(sleepers.ring(), [false, false, false]);
  sleepers.flags[1].fallAsleep();
  sleepers.flags[2].fallAsleep();
  sleepers.flags[1].wakeUp();
  assert.deepEqual(sleepers.ring(), [false, false, true]);
});

Deno.test("whoever does not say when it sleeps, or sleeps by means of its own, is written to every time", () => {
  using sleepers = new Sleepers();
  const { triggers, flags, ringer } = sleepers;
  ringer.setTriggers([
    alwaysWritten(triggers[0].number),
    ...[2, 3].map((id) => ({ fdNumber: triggers[id - 1].number, sleeperId: id })),
  ]);
  flags[2].staySignalled();
  flags[1].fallAsleep();
  assert.deepEqual(sleepers.ring(), [true, true, true]);
  assert.deepEqual(sleepers.ring(), [true, false, true]);
});

Deno.test("a sleeper that is not known here is left to those who know it", () => {
  using sleepers = new Sleepers([1]);
  sleepers.flags[0].fallAsleep();
  sleepers.flags[1].fallAsleep();
  assert.deepEqual(sleepers.ring(), [true, false, false]);
  sleepers.know([1, 2]);
  assert.deepEqual(sleepers.ring(), [false, true, false]);
});

Deno.test("whoever falls asleep again while it is being woken is woken again", () => {
  using sleepers = new Sleepers();
  const { core, u32 } = arena(), ringer = arena().allocate(RingerStruct.bytes);
  u32[(ringer + RingerStruct.bell) >>> 2] = sleepers.channel.blocks.doorbell("subscribers");
  arena().u8.fill(0xff, ringer + RingerStruct.known, ringer + RingerStruct.bytes);
  sleepers.flags[0].fallAsleep();
  assert.equal(core.beginRinging(ringer), 1);
  sleepers.flags[0].wakeUp();
  sleepers.flags[0].fallAsleep();
  assert.equal(core.goOnRinging(ringer), -1);
  assert.deepEqual(sleepers.ring(), [true, false, false]);
  // The same where the id was somebody else's in between.
  sleepers.flags[0].fallAsleep();
  assert.equal(core.beginRinging(ringer), 1);
  sleepers.channel.registry.forgetSleeper(1);
  sleepers.flags[0].fallAsleep();
  assert.equal(core.goOnRinging(ringer), -1);
  assert.deepEqual(sleepers.ring(), [true, false, false]);
  arena().free(ringer, RingerStruct.bytes);
});

Deno.test("a user that is gone does not sleep any more", () => {
  using sleepers = new Sleepers();
  sleepers.flags[0].fallAsleep();
  sleepers.flags[1].staySignalled();
  for (const id of [1, 2]) sleepers.channel.registry.forgetSleeper(id);
  assert.deepEqual(sleepers.ring(), [false, false, false]);
});

Deno.test("where the reference's server made the channel there are no doorbells, and everybody is written to", () => {
  using channel = new LocalChannel();
  const { shape, ccbFd } = channel.blocks;
  using blocks = ControlBlocks.attach(
    shape,
    channel.counters,
    ccbFd.duplicate(),
    createMemory("bcb", Bcb.bytes),
  );
  assert.equal(blocks.doorbell("subscribers"), 0);
  using ringer = new Ringer(blocks, "subscribers");
  const trigger = channel.trigger(), flag = new SleepFlag(blocks, "subscribers", 1);
  ringer.setTriggers([{ fdNumber: trigger.number, sleeperId: 1 }]);
  for (let i = 0; i < 2; i++) {
    ringer.ring();
    assert(drain(trigger.number));
    flag.fallAsleep();
  }
  flag.staySignalled();
  flag.wakeUp();
});

Deno.test("publishing wakes subscribers that sleep, and a release reliable publishers that do", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0, { reliable: true });
  using subscriber = channel.subscriber(1, { reliable: true });
  const trigger = channel.trigger(), back = channel.trigger();
  publisher.setSubscriberTriggers([{ fdNumber: trigger.number, sleeperId: 1 }]);
  subscriber.setPublisherTriggers([{ fdNumber: back.number, sleeperId: 0 }]);
  const flag = new SleepFlag(channel.blocks, "subscribers", 1);
  const backFlag = new SleepFlag(channel.blocks, "publishers", 0);
  for (const sleeps of [false, true, false]) {
    if (sleeps) {
      flag.fallAsleep();
      backFlag.fallAsleep();
    }
    send(publisher, "x");
    assert.equal(drain(trigger.number), sleeps);
    assert.equal(receive(subscriber), "x");
    assert.equal(drain(back.number), sleeps);
  }
});

Deno.test("an unreliable subscriber's release wakes a publisher that waits for it", () => {
  using channel = new LocalChannel();
  using publisher = channel.publisher(0, { reliable: true });
  using subscriber = channel.subscriber(1);
  const back = channel.trigger(), foreign = channel.trigger();
  subscriber.setPublisherTriggers([
    { fdNumber: back.number, sleeperId: 0 },
    alwaysWritten(foreign.number),
  ]);
  send(publisher, "x");
  assert(subscriber.readNext());
  new SleepFlag(channel.blocks, "publishers", 0).fallAsleep();
  subscriber.release(subscriber.slotId);
  assert.deepEqual(written([back, foreign]), [true, false]);
});

Deno.test("without autoFlush the subscribers are woken once, by flush, by waiting for a slot, and by closing", () => {
  using channel = new LocalChannel({ numSlots: 3 });
  const publisher = channel.publisher(0, { reliable: true, autoFlush: false });
  using subscriber = channel.subscriber(1, { reliable: true });
  const sleeper = channel.trigger(), foreign = channel.trigger();
  publisher.setSubscriberTriggers([
    { fdNumber: sleeper.number, sleeperId: 1 },
    alwaysWritten(foreign.number),
  ]);
  const flag = new SleepFlag(channel.blocks, "subscribers", 1);
  flag.fallAsleep();
  send(publisher, "1");
  send(publisher, "2");
  assert.deepEqual(written([sleeper, foreign]), [false, false]);
  publisher.flush();
  assert.deepEqual(written([sleeper, foreign]), [true, true]);
  publisher.flush();
  assert.deepEqual(written([sleeper, foreign]), [false, false], "there is nothing new");
  flag.fallAsleep();
  send(publisher, "3");
  assert.equal(send(publisher, "4"), null);
  assert.deepEqual(written([sleeper, foreign]), [true, true]);
  assert.equal(receive(subscriber), "1");
  flag.fallAsleep();
  send(publisher, "4");
  publisher.close();
  assert.deepEqual(written([sleeper, foreign]), [true, true]);
});
