import assert from "node:assert/strict";
import { Errno, SystemError } from "../../ffi/errno.ts";
import { operatingSystem } from "../../ffi/system.ts";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { fdLimit, setFdLimit } from "../../ffi/resource_limits.ts";
import { createEventFd } from "../../ffi/eventfd.ts";
import { closeAll } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { Connection } from "../../wire/connection.ts";
import { sendRequest } from "../../wire/client_link.ts";
import { until } from "../deployment.ts";
import { asOtherUser, mayBeOthers, OTHER_UID } from "../other_user.ts";
import { test } from "./running_server.ts";

const asOthers = mayBeOthers ? test : (name: string) => Deno.test({ name, ignore: true, fn() {} });

asOthers("another user is turned away, and counted (needs root)", async ({ socket, server, connect }) => {
  using refused = new Connection(asOtherUser(() => connectAbstract(socket)));
  assert.equal(await refused.receive({ decode: () => 0, fdsFollow: () => false }), null);
  assert.deepEqual(server.counters.refusals.totals(), { access: 1 });
  assert.equal(server.counters.connections, 0);
  await connect();
  assert.equal(server.counters.connections, 1);
});

for (const access of [{ anybody: true }, { users: [OTHER_UID] }]) {
  const name = `another user is let in with ${JSON.stringify(access)} (needs root)`;
  if (!mayBeOthers) Deno.test({ name, ignore: true, fn() {} });
  else {
    test(name, async ({ socket, server }) => {
      using _connection = new Connection(asOtherUser(() => connectAbstract(socket)));
      await until("it is connected", () => server.counters.connections === 1);
      assert.deepEqual(server.counters.refusals.totals(), {});
    }, { access });
  }
}

test(
  "one client more than allowed is turned away, until another leaves",
  async ({ server, socket, connect }) => {
    const one = await connect();
    await connect();
    using refused = new Connection(connectAbstract(socket));
    assert.equal(await refused.receive({ decode: () => 0, fdsFollow: () => false }), null);
    assert.deepEqual(server.counters.refusals.totals(), { connections: 1 });
    one.close();
    await until("one has left", () => server.counters.connections === 1);
    await connect();
    assert.equal(server.counters.connectionsPeak, 2);
  },
  { limits: { connectionsMax: 2 } },
);

test(
  "a request that is too long ends its client only, and is counted",
  async ({ server, socket, connect }) => {
    const good = await connect();
    using bad = new Connection(connectAbstract(socket));
    bad.send(new Uint8Array(2000));
    assert.equal(await bad.receive({ decode: () => 0, fdsFollow: () => false }), null);
    await until("it is counted", () => server.counters.refusals.of("frame") === 1);
    assert.equal((await good.getChannelInfo()).error, "");
  },
  { limits: { frameBytesMax: 1000 } },
);

test(
  "a client that takes no answers has to wait, while others are served",
  async ({ server, socket, connect }) => {
    using greedy = new Connection(connectAbstract(socket));
    const requests = 20_000;
    for (let i = 0; i < requests; i++) sendRequest(greedy, { request: { case: "init", value: {} } });
    await until("it has to wait", () => server.counters.pauses > 0);
    const before = server.counters.requests;
    await connect();
    assert(before < requests);
  },
  { limits: { requestsInFlightMax: 2 } },
);

test("requests and refused ones are counted", async ({ server, connect }) => {
  const client = await connect();
  const before = server.counters.requests;
  const { error } = await client.getTriggers("/none");
  assert.match(String(error), /No such channel/);
  assert.equal(server.counters.requests, before + 1);
  assert.deepEqual(server.counters.refusals.totals(), { request: 1 });
});

let watches = 0;
test(
  "a client whose connection cannot be watched is turned away, and counts for nothing",
  async ({ server, socket, connect }) => {
    using refused = new Connection(connectAbstract(socket));
    assert.equal(await refused.receive({ decode: () => 0, fdsFollow: () => false }), null);
    assert.deepEqual([server.counters.connections, server.counters.refusals.of("fds")], [0, 1]);
    await connect();
    assert.equal(server.counters.connections, 1);
  },
  {
    system: {
      ...operatingSystem,
      watch: (fd, events, callback) => {
        // The first is the listener's.
        if (++watches === 2) throw new SystemError("watch an fd", Errno.ENOMEM);
        return operatingSystem.watch(fd, events, callback);
      },
    },
  },
);

test("parts of buffers get none of the last fds either", async ({ server, connect }) => {
  const client = await connect();
  await client.createPublisher("/split");
  using memory = createMemory("part", 4096);
  const { soft } = fdLimit();
  const taken = [createEventFd()];
  setFdLimit(taken[0].number + 120);
  const register = (slotId: number) => {
    const metadata = { channelName: "/split", sessionId: server.sessionId, slotId };
    const value = { metadata, hasFd: true };
    return client.request("registerClientBuffer", { case: "registerClientBuffer", value }, memory);
  };
  try {
    assert.equal((await register(0)).error, "");
    while (taken.at(-1)!.number < fdLimit().soft - 64) taken.push(createEventFd());
    assert.match((await register(1)).error, /^INTERNAL: Cannot keep another part of a buffer, .*: EMFILE$/);
    assert.equal(server.counters.refusals.of("fds"), 1);
    await connect();
  } finally {
    closeAll(taken);
    setFdLimit(soft);
  }
});

test("users get none of the last fds, so that others can still connect", async ({ server, connect }) => {
  const client = await connect();
  const { soft } = fdLimit();
  const taken = [createEventFd()];
  setFdLimit(taken[0].number + 120);
  try {
    while (taken.at(-1)!.number < fdLimit().soft - 64) taken.push(createEventFd());
    const { error } = await client.createSubscriber("/full");
    assert.match(String(error), /^INTERNAL: Cannot add another user, .*: EMFILE$/);
    assert.equal(server.counters.refusals.of("fds"), 1);
    await connect();
  } finally {
    closeAll(taken);
    setFdLimit(soft);
  }
});
