import assert from "node:assert/strict";
import { inspect } from "../../inspect/inspect.ts";
import { InspectError } from "../../inspect/link.ts";
import { requestCodec, sendResponse } from "../../wire/client_link.ts";
import { shadowEventCodec } from "../../wire/shadow_link.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { Peer } from "./peer.ts";
import { RecordedShadow } from "./recorded_shadow.ts";

const sessionId = 77n;
const info = {
  name: "/a",
  channelId: 3,
  slotSize: 256,
  numSlots: 5,
  type: new TextEncoder().encode("A"),
  numPubs: 2,
  numSubs: 1,
  participants: [
    { id: 1, pid: BigInt(Deno.pid), programName: "reader", isSubscriber: true, isReliable: true },
    { id: 0, pid: 0n, programName: "", isPublisher: true },
  ],
};
const virtual = { name: "/v", mux: "/m", isVirtual: true, vchanId: 4, channelId: 5, numPubs: 9, numSlots: 5 };
const multiplexer = { name: "/m", channelId: 5, numPubs: 9, numSubs: 9, numSlots: 5 };
const stats = { channelName: "/a", totalBytes: 10n, totalMessages: 3n, maxMessageSize: 4, totalDrops: 1 };

/** A server that answers three kinds of requests, and notes which. */
function server(asked: (string | undefined)[] = []): Peer {
  return new Peer(async (connection) => {
    while (true) {
      const incoming = await connection.receive(requestCodec);
      if (incoming === null) return;
      const { request } = incoming.message;
      asked.push(request.case);
      if (request.case === "init") {
        sendResponse(connection, { response: { case: "init", value: { sessionId } } }, []);
      } else if (request.case === "getChannelInfo") {
        const channels = [virtual, multiplexer, info];
        sendResponse(connection, { response: { case: "getChannelInfo", value: { channels } } }, []);
      } else {
        const channels = [stats];
        sendResponse(connection, { response: { case: "getChannelStats", value: { channels } } }, []);
      }
    }
  });
}

async function failure(socket: string, timeoutMs = 5000): Promise<string> {
  try {
    await inspect(socket, { timeoutMs, quietMs: 1 });
  } catch (error) {
    assert(error instanceof InspectError);
    assert(!error.message.includes("\n"));
    return error.message;
  }
  throw new Error("it could be inspected");
}

Deno.test("a shadow is told by its speaking first, and is told nothing", () =>
  withBalancedFds(async () => {
    using shadow = new RecordedShadow();
    const heard: Promise<unknown>[] = [];
    using peer = new Peer((connection) => {
      shadow.send(connection);
      heard.push(connection.receive(shadowEventCodec));
    });
    const inspection = await inspect(peer.socket, { quietMs: 60_000, timeoutMs: 60_000 });
    assert.deepEqual(inspection.source, { kind: "shadow", socket: peer.socket, pid: Deno.pid });
    assert.equal(inspection.channels.length, 9);
    assert.deepEqual(await Promise.all(heard), [null]);
  }));

Deno.test("a shadow that is slow to speak is asked what it ignores, and looked at again", () =>
  withBalancedFds(async () => {
    using shadow = new RecordedShadow();
    const heard: unknown[] = [];
    using peer = new Peer(async (connection, index) => {
      if (index === 0) {
        // What a real shadow makes of the question.
        const incoming = await connection.receive(shadowEventCodec);
        heard.push(incoming?.message.event.case, incoming?.message.event.value);
      }
      shadow.send(connection);
    });
    const inspection = await inspect(peer.socket, { quietMs: 1 });
    assert.equal(inspection.source.kind, "shadow");
    assert.equal(peer.connections, 2);
    const { $typeName: _, ...removal } = heard[1] as Record<string, unknown>;
    assert.deepEqual([heard[0], removal], ["removeSubscriber", { channelName: "", subscriberId: 0 }]);
  }));

Deno.test("a server is asked for channels first, and introduced to only then", () =>
  withBalancedFds(async () => {
    const asked: string[] = [];
    using peer = server(asked);
    const { source, session, channels, findings } = await inspect(peer.socket, { quietMs: 1 });
    assert.deepEqual(asked, ["getChannelInfo", "getChannelStats", "init", "getChannelInfo"]);
    assert.deepEqual(source, { kind: "server", socket: peer.socket, pid: Deno.pid });
    assert.equal(session?.id, "77");
    assert.deepEqual(channels.map(({ name, kind }) => `${name} ${kind}`), [
      "/a channel",
      "/m multiplexer",
      "/v virtual",
    ]);
    const [channel, mux, vchan] = channels;
    assert.deepEqual(channel.traffic, { messages: 3, bytes: 10, maxMessageBytes: 4, drops: 1 });
    assert.deepEqual([channel.numPublishers, channel.publishers.length, channel.publishers[0].process], [
      2,
      1,
      null,
    ]);
    assert.deepEqual(
      channel.subscribers.map(({ id, program, reliable, process }) => [id, program, reliable, process]),
      [
        [1, "reader", true, { pid: Deno.pid, alive: true }],
      ],
    );
    // A server counts the users of the whole multiplexer for each of its virtual channels.
    assert.deepEqual([mux.numPublishers, vchan.numPublishers, vchan.traffic], [0, 0, null]);
    assert.deepEqual(findings, [{ kind: "drops", channel: "/a", text: "1 message was dropped" }]);
  }));

Deno.test("nobody listening is said in so many words", async () => {
  const socket = uniqueSocket("nobody");
  assert.equal(
    await failure(socket),
    `Cannot inspect ${socket}: nobody listens there (ECONNREFUSED); start a shadow, or name another socket with --socket`,
  );
});

Deno.test("a peer that never answers is given up after the time-out", async () => {
  using peer = new Peer(() => {});
  assert.equal(
    await failure(peer.socket, 50),
    `Cannot inspect ${peer.socket}: no answer within 0.05 s; whoever listens there is stuck, or no part of subspace`,
  );
});

Deno.test("of a shadow that stops in the middle of its dump all is shown that came", () =>
  withBalancedFds(async () => {
    using shadow = new RecordedShadow();
    using peer = new Peer((connection) => shadow.send(connection, shadow.events.slice(0, 5)));
    const { channels, findings } = await inspect(peer.socket, { timeoutMs: 200, quietMs: 1 });
    assert.deepEqual(channels.map(({ name, subscribers }) => [name, subscribers.length]), [[
      "/robot/odometry",
      2,
    ]]);
    assert.match(
      findings[0].text,
      /^the state dump broke off \(no answer within 0\.2 s;.*\): 1 of 9 channels arrived/,
    );
  }));

Deno.test("of a dump that ends early all is shown that came, and its fds are closed", () =>
  withBalancedFds(async () => {
    using shadow = new RecordedShadow();
    using peer = new Peer((connection) => {
      shadow.send(connection, shadow.events.slice(0, 5));
      connection.close();
    });
    const { findings } = await inspect(peer.socket, { quietMs: 1 });
    assert.equal(findings[0].kind, "damage");
    assert.match(
      findings[0].text,
      /^the state dump broke off \(the connection was closed\): 1 of 9 channels/,
    );
  }));

Deno.test("what is no part of subspace is an error", async () => {
  const says = (bytes: Uint8Array) => new Peer((connection) => connection.send(bytes));
  using chatter = new Peer((connection) => {
    // Frames are the connection's own: what is inside is nonsense.
    connection.send(new TextEncoder().encode("220 mail.example.com ESMTP"));
  });
  assert.match(
    await failure(chatter.socket),
    /Failed to parse shadow event.*is that a subspace shadow or server\?$/,
  );
  using empty = says(new Uint8Array());
  assert.match(await failure(empty.socket), /cannot receive a state dump: it starts with nothing/);
  using hangsUp = new Peer((connection) => connection.close());
  assert.match(await failure(hangsUp.socket), /the connection was closed/);
});

Deno.test("a server's refusal is shown", async () => {
  using peer = new Peer(async (connection) => {
    await connection.receive(requestCodec);
    sendResponse(connection, { response: { case: "getChannelInfo", value: { error: "INTERNAL: no" } } }, []);
  });
  assert.equal(await failure(peer.socket), `Cannot inspect ${peer.socket}: INTERNAL: no`);
});
