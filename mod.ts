/**
 * Publish and subscribe through shared memory, with a server that may be killed at any moment without anyone
 * noticing. Wire- and memory-compatible with C++ subspace 3.0.
 *
 * Needs the permission `--allow-ffi`, Linux, and a server (`subspace-server`) on the same machine.
 *
 * @example Publish and read
 * ```ts
 * import { Client } from "@subspace/deno";
 *
 * await using client = await Client.connect({ socket: "/tmp/subspace" });
 * const publisher = await client.createPublisher("/imu", { slotBytes: 256, numSlots: 16 });
 * const subscriber = await client.createSubscriber("/imu");
 *
 * const buffer = publisher.getBuffer(5)!;
 * const { written } = new TextEncoder().encodeInto("hello", buffer);
 * publisher.publish(written);
 *
 * using message = subscriber.read();
 * console.log(message?.ordinal, new TextDecoder().decode(message?.data));
 * ```
 *
 * @example Lose nothing: a reliable channel, where the publisher waits for its subscribers
 * ```ts
 * import { Client } from "@subspace/deno";
 *
 * await using client = await Client.connect();
 * const subscriber = await client.createSubscriber("/log", { reliable: true });
 * const publisher = await client.createPublisher("/log", { slotBytes: 64, numSlots: 8, reliable: true });
 *
 * const sending = (async () => {
 *   for (let i = 0; i < 100; i++) await publisher.send(new Uint8Array([i]));
 * })();
 * let received = 0;
 * for await (const message of subscriber) {
 *   console.log(message.data[0]);
 *   if (++received === 100) break;
 * }
 * await sending;
 * ```
 *
 * @module
 */

export {
  type ChannelCounterValues,
  type ChannelInfo,
  type ChannelStats,
  Client,
  type ConnectOptions,
  type ParticipantInfo,
} from "./client/client.ts";
export type { ConnectionChange } from "./client/control.ts";
export { bytesCodec, type Codec, jsonCodec, protobufCodec } from "./client/codec.ts";
export { ChecksumError, ClosedError, ConnectionError, RequestError, TimeoutError } from "./client/errors.ts";
export type { Lease } from "./client/lease.ts";
export type { Message, SharedMessage } from "./client/message.ts";
export type { Publisher } from "./client/publisher.ts";
export type { PublisherOptions } from "./client/publisher_options.ts";
export type { Retirements } from "./client/retirements.ts";
export type { Subscriber } from "./client/subscriber.ts";
export type { SubscriberOptions } from "./client/subscriber_options.ts";
export type { SyncWaitOptions, WaitOptions } from "./client/waiter.ts";
export { type ChecksumFunction, crc32, crc32c } from "./shm/checksum.ts";
export type { SplitBufferAllocator, SplitBufferMapper, SplitMemory, SplitSlot } from "./shm/split_memory.ts";
export { sharedMemory } from "./shm/arena.ts";
export { LeaseError } from "./shm/leases.ts";
export { ProtocolError } from "./wire/connection.ts";
