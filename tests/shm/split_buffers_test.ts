import assert from "node:assert/strict";
import {
  objectExists,
  openNamed,
  truncate,
  unlinkFile,
  unlinkNamed,
  writeFile,
} from "../../ffi/memory_object.ts";
import { fromBinary } from "../../proto/message.ts";
import { ClientBufferHandleMetadataProtoSchema } from "../../proto/subspace.ts";
import { ClientBufferAllocator } from "../../proto/subspace_pb.ts";
import { splitObjectName, type SplitPart, splitPath } from "../../shm/buffer_names.ts";
import { ControlBlockError } from "../../shm/control_blocks.ts";
import { bufferBytes } from "../../shm/layout.ts";
import type { RegisteredSlot, SplitSlot } from "../../shm/split_memory.ts";
import type { PartMetadata, PartRegistry, RegisteredSlots } from "../../shm/split_buffers.ts";
import { LocalChannel, type LocalChannelOptions, receive, receiveAll, send } from "./local_channel.ts";
import { withBalancedFds } from "../open_fds.ts";

/** A channel with split buffers, and in place of its server a list of what was registered. */
class SplitChannel extends LocalChannel implements PartRegistry {
  readonly registered: PartMetadata[] = [];
  readonly split = { registry: this, allocator: null };

  constructor(options: LocalChannelOptions = {}) {
    super({ numSlots: 4, slotBytes: 64, ...options });
  }

  register(metadata: PartMetadata): void {
    this.registered.push(metadata);
  }

  unregister(): void {}

  /** What is known of the slots when somebody asks. */
  known: RegisteredSlots["slots"] = new Map();

  take(): RegisteredSlots {
    return { slots: this.known, [Symbol.dispose]() {} };
  }

  path(index: number, part: SplitPart): string {
    return splitPath(this.sessionId, this.resolvedName, index, part);
  }

  object(index: number, part: SplitPart): string {
    return splitObjectName(this.path(index, part));
  }

  override [Symbol.dispose](): void {
    for (let index = 0; index <= this.blocks.numBuffers; index++) {
      for (const part of ["prefix" as const, ...[0, 1, 2, 3].map((slot) => ({ slot }))]) {
        unlinkNamed(this.object(index, part));
        unlinkFile(this.path(index, part));
      }
    }
    super[Symbol.dispose]();
  }
}

const mayUseFiles = (["read", "write"] as const).every((name) =>
  Deno.permissions.querySync({ name }).state === "granted"
);

function test(name: string, run: (channel: SplitChannel) => void, needsFiles = false): void {
  const ignore = needsFiles && !mayUseFiles;
  Deno.test({
    name: name + (ignore ? " (skipped: needs permission to read and write)" : ""),
    ignore,
    fn: () =>
      withBalancedFds(() => {
        using channel = new SplitChannel();
        run(channel);
        return Promise.resolve();
      }),
  });
}

test("a split buffer is an object with all prefixes, and one for each payload, all registered", (channel) => {
  const { split } = channel;
  using publisher = channel.publisher(0, { split, metadataBytes: 13 });
  const bytesOf = (part: SplitPart) => {
    using fd = openNamed(channel.object(0, part))!;
    return [fd.stat().bytes, fd.stat().mode & 0o777];
  };
  assert.deepEqual(bytesOf("prefix"), [4096, 0o777]);
  for (let slot = 0; slot < 4; slot++) assert.deepEqual(bytesOf({ slot }), [4096, 0o777]);
  assert.equal(channel.blocks.bufferBytes(0), bufferBytes(4, 64, 128), "what it would have in one piece");
  assert.deepEqual(channel.registered.map(({ isPrefix, slotId }) => isPrefix ? "prefix" : slotId), [
    "prefix",
    0,
    1,
    2,
    3,
  ]);
  const written = fromBinary(
    ClientBufferHandleMetadataProtoSchema,
    Deno.readFileSync(channel.path(0, { slot: 3 })),
  );
  assert.deepEqual(
    [written.channelName, written.sessionId, written.slotId, written.allocationSize, written.objectName],
    [channel.resolvedName, channel.sessionId, 3, 4096n, channel.object(0, { slot: 3 })],
  );
  assert.equal(written.allocator, ClientBufferAllocator.UNSPECIFIED);
  assert.equal(channel.registered.at(-1)!.allocator, ClientBufferAllocator.SPLIT_SHM);
  assert.equal(publisher.slotBytes, 64);
}, true);

test("buffers that a publisher finds are used, and larger ones appended", (channel) => {
  const { split } = channel;
  using first = channel.publisher(0, { split });
  using second = channel.publisher(1, { split, slotBytes: 10_000 });
  using subscriber = channel.subscriber(2, { split });
  assert.deepEqual([first.slotBytes, second.slotBytes, channel.blocks.numBuffers], [64, 10_048, 2]);
  send(second, "x".repeat(9000));
  send(first, "y");
  assert.deepEqual(receiveAll(subscriber).map((text) => text.length), [9000, 1]);
  assert.equal(channel.registered.length, 10, "each part was registered by who made it");
});

test("what a publisher has left half made, another completes", (channel) => {
  const { split } = channel;
  channel.publisher(0, { split }).close();
  // It has died over slot 2: neither that nor what comes after is there, nor was the buffer announced.
  for (const slot of [2, 3]) {
    unlinkNamed(channel.object(0, { slot }));
    unlinkFile(channel.path(0, { slot }));
  }
  channel.blocks.announceBuffers(1, 0);
  using publisher = channel.publisher(1, { split, slotBytes: 5000 });
  using subscriber = channel.subscriber(2, { split });
  for (let i = 0; i < 8; i++) {
    send(publisher, `${i}`.repeat(5000));
    assert.equal(receive(subscriber), `${i}`.repeat(5000));
  }
});

test("sizes that others say do not matter more than the objects that are there", (channel) => {
  const { split } = channel;
  using publisher = channel.publisher(0, { split, slotBytes: 4096 });
  send(publisher, "z".repeat(4000));
  for (const said of [0, 1, 2 ** 40, bufferBytes(4, 1 << 20, 64)]) {
    channel.blocks.setBufferBytes(0, said);
    using subscriber = channel.subscriber(1, { split });
    assert.equal(receive(subscriber), "z".repeat(4000));
    subscriber[Symbol.dispose]();
    channel.removeSubscriber(1, false);
  }
  writeFile(channel.path(0, { slot: 0 }), new TextEncoder().encode("no metadata"), 0o666);
  using subscriber = channel.subscriber(1, { split });
  assert.equal(receive(subscriber), "z".repeat(4000), "the files are for others");
});

test("a message that is larger than its object is refused, not read beyond its end", (channel) => {
  const { split } = channel;
  using publisher = channel.publisher(0, { split, slotBytes: 8192 });
  for (let slot = 0; slot < 4; slot++) {
    using fd = openNamed(channel.object(0, { slot }))!;
    truncate(fd, 4096);
  }
  publisher.buffer(8192);
  publisher.publish(8192);
  using subscriber = channel.subscriber(1, { split });
  assert.throws(() => subscriber.readNext(), /slot \d of 4096 bytes says that it has 8192/);
});

test("prefixes that are too short are an error, and a payload that is gone is no message", (channel) => {
  const { split } = channel;
  using publisher = channel.publisher(0, { split });
  send(publisher, "lost");
  const { slotId } = publisher;
  for (let slot = 0; slot < 4; slot++) if (slot !== slotId) unlinkNamed(channel.object(0, { slot }));
  using subscriber = channel.subscriber(1, { split });
  assert.equal(subscriber.readNext(), false);
  assert.equal(subscriber.mayHaveUnread, false, "a wait would go on until there is another message");
  send(publisher, "another");
  assert.equal(subscriber.mayHaveUnread, true);
  {
    using fd = openNamed(channel.object(0, "prefix"))!;
    truncate(fd, 100);
  }
  assert.throws(() => subscriber.readNext(), ControlBlockError);
  truncateBack(channel);
});

/** The publisher has the prefixes mapped still. */
function truncateBack(channel: SplitChannel): void {
  using fd = openNamed(channel.object(0, "prefix"))!;
  truncate(fd, 4096);
}

test("what could not be made is gone again", (channel) => {
  const { split } = channel;
  using _blocker = openNamed(channel.object(0, { slot: 2 }), { create: true });
  const file = channel.path(0, { slot: 3 }) + ".tmp";
  Deno.mkdirSync(file);
  try {
    assert.throws(() => channel.publisher(0, { split }), /^SystemError: Cannot create .*_slot_3.tmp: EEXIST/);
  } finally {
    Deno.removeSync(file);
  }
  assert.equal(channel.blocks.numBuffers, 0);
  for (const part of ["prefix" as const, { slot: 0 }, { slot: 3 }]) {
    assert(!objectExists(channel.object(0, part)));
  }
  using publisher = channel.publisher(1, { split });
  assert.equal(publisher.slotBytes, 64);
}, true);

test("a mapper is called for no slot before all are registered", (channel) => {
  const memory = new BigUint64Array(512), mapped: number[] = [];
  const pointer = Deno.UnsafePointer.of(memory)!;
  const map = ({ slotId }: SplitSlot) => (mapped.push(slotId), { pointer });
  const split = { registry: channel, allocator: { allocate: () => ({ pointer }), map } };
  using _publisher = channel.publisher(0, { split });
  const slot: RegisteredSlot = { handle: 1n, fd: null, mapOffset: 0, allocated: true };
  channel.known = new Map([[0, slot], [1, slot]]);
  assert.throws(() => channel.publisher(1, { split }), /it is announced, and does not exist/);
  assert.deepEqual(mapped, []);
  channel.known = new Map([0, 1, 2, 3].map((slotId) => [slotId, slot]));
  using _other = channel.publisher(1, { split });
  assert.deepEqual(mapped, [0, 1, 2, 3]);
});
