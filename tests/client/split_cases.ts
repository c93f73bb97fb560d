/** What holds of split buffers, with any server: run against ours, in this process, and against the C++ one. */

import assert from "node:assert/strict";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import {
  type Client,
  RequestError,
  type SplitBufferAllocator,
  type SplitBufferMapper,
  type SplitSlot,
} from "../../mod.ts";
import { splitObjectName, splitPath } from "../../shm/buffer_names.ts";
import { eventually, readAll } from "./cases.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (text: string) => new TextEncoder().encode(text);
const SMALL = { slotBytes: 64, numSlots: 8, splitBuffers: true };

/** Memory of this process, by handles: what hardware with memory of its own is to others. */
export class Device implements SplitBufferAllocator {
  readonly memory = new Map<bigint, Uint8Array<ArrayBuffer>>();
  readonly calls = { allocate: 0, map: 0, unmap: 0, free: 0 };

  allocate({ bytes }: SplitSlot) {
    this.calls.allocate++;
    const handle = BigInt(1000 + this.memory.size), memory = new Uint8Array(bytes);
    this.memory.set(handle, memory);
    return { pointer: Deno.UnsafePointer.of(memory)!, handle };
  }

  map({ handle }: SplitSlot) {
    this.calls.map++;
    const memory = this.memory.get(handle);
    assert(memory !== undefined, `there is no memory ${handle}`);
    return { pointer: Deno.UnsafePointer.of(memory)!, handle };
  }

  unmap(): void {
    this.calls.unmap++;
  }

  free(_slot: SplitSlot, { handle }: { handle?: bigint }): void {
    this.calls.free++;
    this.memory.delete(handle!);
  }

  /** What a subscriber needs of it. */
  get mapper(): SplitBufferMapper {
    return { map: (slot) => this.map(slot), unmap: () => this.unmap() };
  }
}

/** Memory files, one a slot. */
export class Files implements SplitBufferAllocator {
  readonly fds: Fd[] = [];

  allocate({ slotId, bytes }: SplitSlot) {
    const fd = createMemory(`slot ${slotId}`, bytes + 4096);
    this.fds.push(fd);
    return { fd: fd.number, mapOffset: 4096, handle: BigInt(slotId) };
  }

  [Symbol.dispose](): void {
    closeAll(this.fds);
  }
}

/** Name of a case, and what is done with a client on a server of its own. */
export const splitCases: Record<
  string,
  (client: Client, connect: () => Promise<Client>) => Promise<void>
> = {
  async "messages in split buffers are read like others, with their metadata and checksums"(client, connect) {
    await using other = await connect();
    const options = { ...SMALL, metadataBytes: 8, checksum: true };
    const publisher = await client.createPublisher("/split", options);
    const subscriber = await other.createSubscriber("/split", { checksum: true, maxActiveMessages: 2 });
    assert.equal(publisher.slotBytes, 64);
    for (let i = 0; i < 50; i++) {
      assert(publisher.publish(bytes(`number ${i}`), bytes(`meta ${i}`)));
      using message = subscriber.read()!;
      assert.equal(text(message.data), `number ${i}`);
      assert.equal(text(message.metadata).replace(/\0+$/, ""), `meta ${i}`);
      assert.deepEqual([message.ordinal, message.vchanId, message.memoryHandle], [i + 1, -1, null]);
      assert(message.timestampNs > 0n && !message.isActivation && !message.checksumError);
    }
    publisher.publish(bytes("by time"));
    const message = subscriber.read()!, { timestampNs } = message;
    message.release();
    using found = subscriber.find(timestampNs)!;
    assert.equal(text(found.data), "by time");
  },

  async "each payload is in memory of its own, in names that can be known"(client) {
    const publisher = await client.createPublisher("/names", SMALL);
    const [{ channelId }] = await client.channelInfo("/names");
    assert(channelId >= 0);
    publisher.publish(bytes("x"));
    const first = publisher.getBuffer()!;
    assert.equal(first.length, 64);
    assert.equal(first.buffer.byteLength, 4096, "it is a page, and no other slot is on it");
    const other = await client.createPublisher("/names", SMALL);
    other.publish(bytes("y"));
    const subscriber = await client.createSubscriber("/names");
    assert.deepEqual(readAll(subscriber), ["x", "y"]);
  },

  async "split buffers grow in mid-stream, under messages that are held"(client, connect) {
    await using other = await connect();
    const publisher = await client.createPublisher("/grow", { ...SMALL, reliable: true });
    const subscriber = await other.createSubscriber("/grow", { reliable: true, maxActiveMessages: 2 });
    await publisher.send(bytes("held"));
    using held = subscriber.read()!;
    for (let size = 1; size <= 1 << 20; size *= 4) {
      await publisher.send(new Uint8Array(size).fill(size % 251));
      using message = subscriber.read()!;
      assert.equal(message.data.length, size);
      assert(message.data[0] === size % 251 && message.data[size - 1] === size % 251);
    }
    assert.equal(text(held.data), "held");
    const second = await other.createPublisher("/grow", { ...SMALL, reliable: true });
    await second.send(bytes("small"));
    assert.deepEqual(readAll(subscriber), ["small"]);
  },

  async "a subscriber that was there first learns that buffers are split"(client, connect) {
    const subscriber = await client.createSubscriber("/early", { reliable: true });
    assert.equal(subscriber.numSlots, 0);
    const waiting = subscriber.wait();
    await using other = await connect();
    const publisher = await other.createPublisher("/early", { ...SMALL, reliable: true });
    await publisher.send(bytes("first"));
    assert(await waiting);
    assert.deepEqual(readAll(subscriber), ["first"]);
  },

  async "publishers must agree on whether buffers are split, here and over bridges"(client) {
    await client.createPublisher("/mixed", SMALL);
    await assert.rejects(
      client.createPublisher("/mixed", { ...SMALL, splitBuffers: false }),
      (error) => error instanceof RequestError && /split-buffer mode/.test(error.reason),
    );
    await client.createPublisher("/bridge", { ...SMALL, splitBuffers: false, splitBuffersOverBridge: true });
    await assert.rejects(
      client.createPublisher("/bridge", { ...SMALL, splitBuffers: false }),
      /bridge split-buffer mode/,
    );
  },

  async "virtual channels share the split buffers of their multiplexer"(client) {
    const one = await client.createPublisher("/v/1", { ...SMALL, mux: "/v" });
    const two = await client.createPublisher("/v/2", { ...SMALL, mux: "/v" });
    const all = await client.createSubscriber("/v");
    const own = await client.createSubscriber("/v/2", { mux: "/v" });
    one.publish(bytes("a"));
    two.publish(bytes("b"));
    assert.deepEqual([readAll(all), readAll(own)], [["a", "b"], ["b"]]);
  },

  async "leases are of split buffers too"(client) {
    const publisher = await client.createPublisher("/lease", { ...SMALL, maxOutstandingLeases: 2 });
    const subscriber = await client.createSubscriber("/lease");
    using lease = publisher.lease()!;
    lease.buffer.set(bytes("leased"));
    assert.equal(lease.memoryHandle, null);
    lease.publish(6);
    assert.deepEqual(readAll(subscriber), ["leased"]);
  },

  async "memory of an allocator carries messages, and is freed by who made it"(client, connect) {
    await using other = await connect();
    const device = new Device();
    const publisher = await client.createPublisher("/device", {
      ...SMALL,
      numSlots: 3,
      splitBuffers: device,
    });
    assert.deepEqual(device.calls, { allocate: 3, map: 0, unmap: 0, free: 0 });
    const subscriber = await other.createSubscriber("/device", { splitBuffers: device.mapper });
    const buffer = publisher.getBuffer(14)!;
    buffer.set(bytes("in its memory"));
    const handle = publisher.memoryHandle!;
    assert.equal(text(device.memory.get(handle)!.subarray(0, 13)), "in its memory");
    publisher.publish(13);
    assert(await subscriber.wait());
    await eventually(
      "it has its memory",
      () => subscriber.find(0n) === null && device.calls.map === 3 || hasRead(),
    );
    function hasRead(): boolean {
      using message = subscriber.read();
      if (message === null) return false;
      assert.deepEqual([text(message.data), message.memoryHandle], ["in its memory", handle]);
      return true;
    }
    await subscriber.close();
    assert.deepEqual(device.calls, { allocate: 3, map: 3, unmap: 3, free: 0 });
    await publisher.close();
    assert.deepEqual(device.calls, { allocate: 3, map: 3, unmap: 3, free: 3 });
    assert.equal(device.memory.size, 0);
  },

  async "a second publisher maps what the first one's allocator made, also once it grows"(client, connect) {
    await using other = await connect();
    const device = new Device();
    const options = { ...SMALL, numSlots: 6, splitBuffers: device, reliable: true };
    const first = await client.createPublisher("/pair", options);
    const second = await other.createPublisher("/pair", options);
    assert.deepEqual([device.calls.allocate, device.calls.map], [6, 6]);
    const subscriber = await client.createSubscriber("/pair", {
      splitBuffers: device.mapper,
      reliable: true,
    });
    const read = (async () => {
      const all: string[] = [];
      for await (const message of subscriber) if (all.push(text(message.data.subarray(0, 9))) === 4) break;
      return all;
    })();
    await first.send(bytes("one"));
    await second.send(bytes("two"));
    await first.send(bytes("three".padEnd(9000)));
    await second.send(bytes("four"));
    assert.deepEqual((await read).map((each) => each.trim()), ["one", "two", "three", "four"]);
    assert.equal(device.calls.allocate, 12);
  },

  async "files of an allocator need no mapper"(client, connect) {
    await using other = await connect();
    using files = new Files();
    const publisher = await client.createPublisher("/files", { ...SMALL, splitBuffers: files });
    const subscriber = await other.createSubscriber("/files");
    const second = await other.createPublisher("/files", { ...SMALL, splitBuffers: files });
    publisher.publish(bytes("file"));
    second.publish(bytes("again"));
    const all: string[] = [];
    for await (const message of subscriber) if (all.push(text(message.data)) === 2) break;
    assert.deepEqual(all, ["file", "again"]);
    assert.equal(files.fds.length, 8, "the second publisher mapped the first one's");
  },

  async "an allocator that fails leaves nothing behind, and its error is the caller's"(client) {
    const device = new Device();
    let left = 2;
    const failing: SplitBufferAllocator = {
      allocate: (slot) => {
        if (left-- === 0) throw new Error("out of device memory");
        return device.allocate(slot);
      },
      free: (slot, memory) => device.free(slot, memory),
    };
    await assert.rejects(
      client.createPublisher("/fail", { ...SMALL, splitBuffers: failing }),
      /out of device memory/,
    );
    assert.deepEqual([device.calls.free, device.memory.size], [2, 0]);
    const neither = { allocate: () => ({}) };
    await assert.rejects(
      client.createPublisher("/fail", { ...SMALL, splitBuffers: neither }),
      /neither `pointer` nor `fd`/,
    );
    const publisher = await client.createPublisher("/fail", SMALL);
    const subscriber = await client.createSubscriber("/fail");
    publisher.publish(bytes("fine"));
    assert.deepEqual(readAll(subscriber), ["fine"]);
  },

  async "what an allocator made and nobody can find is an error that says so"(client) {
    const device = new Device();
    const publisher = await client.createPublisher("/lost", { ...SMALL, splitBuffers: device });
    const subscriber = await client.createSubscriber("/lost");
    publisher.publish(bytes("x"));
    await assert.rejects(async () => {
      for (;;) {
        subscriber.read();
        await subscriber.wait({ timeoutMs: 10 });
      }
    }, /an allocator made it and gave no fd/);
  },
};

/** The names in /dev/shm of a split buffer of so many slots. */
export function splitNames(sessionId: bigint, channel: string, index: number, numSlots: number): string[] {
  const parts = ["prefix" as const, ...Array.from({ length: numSlots }, (_, slot) => ({ slot }))];
  return parts.map((part) => splitObjectName(splitPath(sessionId, channel, index, part)));
}
