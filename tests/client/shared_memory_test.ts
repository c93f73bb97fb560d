/** Messages as WebAssembly modules of the user see them. */

import assert from "node:assert/strict";
import { Client, type Publisher, sharedMemory, type Subscriber } from "../../mod.ts";
import { Server } from "../../server/server.ts";
import { uniqueSocket } from "../program.ts";

// (module (import "env" "memory" (memory 1 65536))
//   (func (export "get") (param i32) (result i32) local.get 0 i32.load)
//   (func (export "set") (param i32 i32) local.get 0 local.get 1 i32.store))
const module = new WebAssembly.Module(Uint8Array.fromBase64(
  "AGFzbQEAAAABCwJgAX8Bf2ACf38AAhIBA2VudgZtZW1vcnkCAQGAgAQDAwIAAQcNAgNnZXQAAANzZXQAAQoTAgcAIAAoAgALCQAgACABNgIACw==",
));

interface Words {
  get(address: number): number;
  set(address: number, word: number): void;
}

function words(): Words {
  const { exports } = new WebAssembly.Instance(module, { env: { memory: sharedMemory() } });
  return exports as unknown as Words;
}

async function withChannel(
  body: (publisher: Publisher, subscriber: Subscriber) => void | Promise<void>,
  splitBuffers = false,
): Promise<void> {
  const socket = uniqueSocket("shared_memory");
  await using _server = await Server.start({ socket, local: true });
  await using client = await Client.connect({ socket });
  const publisher = await client.createPublisher("words", { slotBytes: 64, numSlots: 8, splitBuffers });
  await body(publisher, await client.createSubscriber("words"));
}

Deno.test("what WebAssembly writes at a publisher's address is read at the message's", () =>
  withChannel((publisher, subscriber) => {
    const { get, set } = words();
    for (let word = 1; word <= 20; word++) {
      publisher.getBuffer();
      set(publisher.address, word);
      publisher.publish(4);
      using message = subscriber.read()!;
      assert.equal(new DataView(message.data.buffer, message.data.byteOffset).getUint32(0, true), word);
      assert.equal(get(message.address), word);
    }
  }));

Deno.test("an address leads to no message once the buffers have grown and their channel is closed", () =>
  withChannel(async (publisher, subscriber) => {
    publisher.publish(Uint8Array.of(7, 0, 0, 0));
    const { address } = subscriber.read()!;
    publisher.publish(new Uint8Array(5000).fill(9));
    await subscriber.close();
    assert.equal(words().get(address), 0);
  }));

Deno.test("messages of split buffers have no address", () =>
  withChannel((publisher, subscriber) => {
    publisher.getBuffer();
    assert.throws(() => publisher.address, /its buffers are split/);
    publisher.publish(4);
    using message = subscriber.read()!;
    assert.throws(() => message.address, /its buffers are split/);
  }, true));
