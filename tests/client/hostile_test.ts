/** A server that lies, breaks off or says nothing does no harm to a client. */

import assert from "node:assert/strict";
import { createEventFd } from "../../ffi/eventfd.ts";
import type { Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { sendMessage } from "../../ffi/message.ts";
import { Client, ConnectionError, ProtocolError, RequestError, TimeoutError } from "../../mod.ts";
import { Bcb, Ccb, controlBlockBytes } from "../../shm/layout.ts";
import { withBalancedFds } from "../open_fds.ts";
import { eventually } from "./cases.ts";
import { type FakeAnswer, FakeServer, greeting, type Script } from "./fake_server.ts";

const PUBLISHER = { slotBytes: 64, numSlots: 4 };

/** Runs a test with a fake server that answers `Init` properly, and all else by the script. */
function hostile(
  name: string,
  script: Script,
  run: (client: Client, server: FakeServer) => Promise<void>,
  requestTimeoutMs = 30_000,
): void {
  Deno.test(name, () =>
    withBalancedFds(async () => {
      using server = new FakeServer((request, connection) =>
        request.case === "init" ? greeting() : script(request, connection)
      );
      const client = await Client.connect({ socket: server.socket, requestTimeoutMs });
      try {
        await run(client, server);
      } finally {
        client[Symbol.dispose]();
      }
    }));
}

/** A channel control block that says so of itself. */
function ccb(numSlots: number, version = 4, byteLength = controlBlockBytes(4, 0)): Fd {
  const fd = createMemory("ccb", byteLength);
  using mapping = Mapping.map(fd, byteLength);
  if (byteLength < Ccb.slots) return fd;
  mapping.view.setInt32(Ccb.numSlots, numSlots, true);
  mapping.view.setUint32(Ccb.version, version, true);
  return fd;
}

const bcb = () => createMemory("bcb", Bcb.bytes);

interface PublisherAnswer {
  channelId?: number;
  publisherId?: number;
  ccbFdIndex?: number;
  subTriggerFdIndexes?: number[];
  retirementFdIndexes?: number[];
  subscriberQueueArenaSize?: bigint;
}

/** An answer to `CreatePublisher`: a good one, but for what is given. */
function publisherAnswer(value: PublisherAnswer = {}, fds?: Fd[]): FakeAnswer {
  const good = { bcbFdIndex: 1, pubPollFdIndex: 2, pubTriggerFdIndex: 3, vchanId: -1, retirementFdIndex: -1 };
  return {
    response: { case: "createPublisher", value: { ...good, ...value } },
    fds: fds ?? [ccb(4), bcb(), createEventFd(), createEventFd()],
  };
}

function subscriberAnswer(numSlots: number, fds?: Fd[]): FakeAnswer {
  const value = { bcbFdIndex: 1, triggerFdIndex: 2, pollFdIndex: 3, numSlots, slotSize: 64 };
  return {
    response: { case: "createSubscriber", value },
    fds: fds ?? [ccb(numSlots), bcb(), createEventFd(), createEventFd()],
  };
}

const badPublishers: Record<string, [answer: () => FakeAnswer, reason: RegExp]> = {
  "no fds": [() => publisherAnswer({}, []), /names fd 0 of 0/],
  "an index beyond the fds": [() => publisherAnswer({ ccbFdIndex: 7 }), /names fd 7 of 4/],
  "a negative index": [() => publisherAnswer({ ccbFdIndex: -1 }), /names fd -1 of 4/],
  "an index that comes twice": [() => publisherAnswer({ ccbFdIndex: 1 }), /fd 1 of 4, or names it twice/],
  "a trigger that is not there": [() => publisherAnswer({ subTriggerFdIndexes: [3, 4] }), /names fd 4 of 4/],
  "a channel id out of range": [() => publisherAnswer({ channelId: 1024 }), /channel 1024/],
  "a negative channel id": [() => publisherAnswer({ channelId: -1 }), /channel -1/],
  "a publisher id out of range": [() => publisherAnswer({ publisherId: 1024 }), /user id 1024/],
  "a control block without a header": [
    () => publisherAnswer({}, [ccb(4, 4, 64), bcb(), createEventFd(), createEventFd()]),
    /too short for its header/,
  ],
  "a control block of two billion slots": [
    () => publisherAnswer({}, [ccb(0x7fff_ffff), bcb(), createEventFd(), createEventFd()]),
    /2147483647 slots/,
  ],
  "a control block of a negative number of slots": [
    () => publisherAnswer({}, [ccb(-4), bcb(), createEventFd(), createEventFd()]),
    /-4 slots/,
  ],
  "a control block of no slots": [
    () => publisherAnswer({}, [ccb(0), bcb(), createEventFd(), createEventFd()]),
    /placeholder/,
  ],
  "a control block that is too short for its slots": [
    () => publisherAnswer({}, [ccb(64), bcb(), createEventFd(), createEventFd()]),
    /Cannot use the control block of channel \/a/,
  ],
  "a queue arena of 2^63 bytes": [
    () => publisherAnswer({ subscriberQueueArenaSize: 1n << 63n }),
    /queue arena/,
  ],
  "a control block of another version": [
    () => publisherAnswer({}, [ccb(4, 5), bcb(), createEventFd(), createEventFd()]),
    /version 5/,
  ],
  "a buffer control block that is too short": [
    () => publisherAnswer({}, [ccb(4), createMemory("bcb", 64), createEventFd(), createEventFd()]),
    /buffer control block/,
  ],
  "an eventfd for a control block": [
    () => publisherAnswer({}, [createEventFd(), bcb(), createEventFd(), createEventFd()]),
    /./,
  ],
};

for (const [name, [answer, reason]] of Object.entries(badPublishers)) {
  hostile(
    `an answer with ${name} is an error, and the client goes on`,
    ({ case: kind }) => {
      if (kind === "createPublisher") return answer();
      return { response: { case: kind === "removePublisher" ? kind : "getChannelInfo", value: {} } };
    },
    async (client, server) => {
      await assert.rejects(client.createPublisher("/a", PUBLISHER), (error) => {
        assert(error instanceof Error);
        assert.match(error.message, reason);
        return true;
      });
      assert.deepEqual(await client.channelInfo(), []);
      assert(server.requests.some(({ case: kind }) => kind === "removePublisher"), "what it made is removed");
    },
  );
}

hostile(
  "a subscriber's answer whose number of slots is not the control block's is an error",
  () => subscriberAnswer(2 ** 31 - 1, [ccb(4), bcb(), createEventFd(), createEventFd()]),
  async (client) => {
    await assert.rejects(client.createSubscriber("/a"), /2147483647 slots/);
  },
);

hostile(
  "a refusal that comes with fds leaks none",
  () => ({
    response: { case: "createSubscriber", value: { error: "no" } },
    fds: [createEventFd(), createEventFd()],
  }),
  async (client) => {
    await assert.rejects(client.createSubscriber("/a"), RequestError);
  },
);

hostile(
  "an answer of another kind ends the connection, and the request",
  () => ({ response: { case: "getTriggers", value: {} }, fds: [createEventFd()] }),
  async (client, server) => {
    await assert.rejects(client.createSubscriber("/a"), ProtocolError);
    await eventually("the client connects again", () => server.connections.length > 1 && client.connected);
  },
);

hostile(
  "an answer that nobody asked for ends the connection",
  () => null,
  async (client, server) => {
    FakeServer.send(server.connections[0], {
      response: { case: "getTriggers", value: {} },
      fds: [createEventFd()],
    });
    await eventually("the client connects again", () => client.reattachments === 1);
    assert(server.connections[0].socket.closed || server.connections.length > 1);
  },
);

for (
  const [name, garbage] of Object.entries({
    "a length of 2 GiB": new Uint8Array([0x7f, 0xff, 0xff, 0xff, 1, 2, 3]),
    "random bytes": crypto.getRandomValues(new Uint8Array(256)).fill(0, 0, 2),
    "a negative number of fds": new Uint8Array([0, 0, 0, 2, 0x4a, 0, 0xff, 0xff, 0xff, 0xff]),
  })
) {
  hostile(`${name} for an answer ends the connection, and the request`, (_, connection) => {
    sendMessage(connection.socket, garbage);
    connection.close();
    return null;
  }, async (client) => {
    await assert.rejects(client.createSubscriber("/a"), ProtocolError);
  });
}

hostile("a server that hangs up at each request is asked again, and given up in time", (_, connection) => {
  connection.close();
  return null;
}, async (client, server) => {
  await assert.rejects(client.createSubscriber("/a"), (error) => {
    assert(error instanceof TimeoutError);
    assert.match(error.message, /within 500 ms \(.*hung up\)/);
    return true;
  });
  const { length } = server.connections;
  assert(length > 2 && length < 50, `${length} connections`);
}, 500);

hostile("a request that is not answered in time is undone when it is", ({ case: kind }, connection) => {
  if (kind === "createSubscriber") setTimeout(() => FakeServer.send(connection, subscriberAnswer(4)), 600);
  return null;
}, async (client, server) => {
  await assert.rejects(client.createSubscriber("/a"), TimeoutError);
  await eventually(
    "the subscriber is removed",
    () => server.requests.some(({ case: kind }) => kind === "removeSubscriber"),
  );
}, 500);

hostile("a server that falls silent stops nothing", ({ case: kind }) => {
  if (kind === "createSubscriber") return subscriberAnswer(0);
  return null;
}, async (client) => {
  const subscriber = await client.createSubscriber("/a");
  assert.equal(subscriber.read(), null);
  assert.equal(subscriber.waitSync({ timeoutMs: 1 }), false);
  assert.equal(await subscriber.wait({ timeoutMs: 1 }), false);
});

Deno.test("no server is an error at once, or after waiting for one", () =>
  withBalancedFds(async () => {
    await assert.rejects(Client.connect({ socket: "/subspace_test/nobody" }), (error) => {
      assert(error instanceof ConnectionError);
      assert.match(error.message, /\/subspace_test\/nobody: ECONNREFUSED/);
      return true;
    });
    await assert.rejects(Client.connect({ socket: "/subspace_test/nobody", waitMs: 20 }), TimeoutError);
  }));

Deno.test("a server that comes late is waited for", () =>
  withBalancedFds(async () => {
    using server = new FakeServer(() => greeting());
    const { socket } = server;
    server[Symbol.dispose]();
    const connecting = Client.connect({ socket, waitMs: 30_000 });
    await new Promise((resolve) => setTimeout(resolve, 10));
    using _late = new FakeServer(() => greeting(), socket);
    using client = await connecting;
    assert(client.connected && client.reattachments === 0);
  }));

Deno.test("a greeting without memory, or none at all, is an error", () =>
  withBalancedFds(async () => {
    const connect = async (script: Script) => {
      using server = new FakeServer(script);
      await Client.connect({ socket: server.socket, requestTimeoutMs: 100 });
    };
    const greet = (...fds: Fd[]): FakeAnswer => ({
      response: { case: "init", value: { sessionId: 1n } },
      fds,
    });
    await assert.rejects(connect(() => greet()), /names fd 0 of 0/);
    await assert.rejects(connect(() => greet(createMemory("scb", 4096))), ConnectionError);
    await assert.rejects(connect(() => greet(createEventFd())), ConnectionError);
    await assert.rejects(connect(() => null), TimeoutError);
    await assert.rejects(
      connect((_, connection) => {
        connection.close();
        return null;
      }),
      ConnectionError,
    );
  }));
