import assert from "node:assert/strict";
import { createEventFd } from "../../ffi/eventfd.ts";
import { closeAll, duplicateAll, type Fd } from "../../ffi/fd.ts";
import { receiveMessage, sendMessage } from "../../ffi/message.ts";
import { socketPair } from "../../ffi/unix_socket.ts";
import { type Codec, Connection, type ConnectionLimits, ProtocolError } from "../../wire/connection.ts";
import { frame } from "../../wire/frame.ts";
import { withBalancedFds } from "../open_fds.ts";

/** Messages that start with "F" have fds behind them. */
const codec: Codec<string> = {
  decode(bytes) {
    const text = new TextDecoder().decode(bytes);
    if (text === "bad") throw new ProtocolError("Cannot decode: it is bad");
    return text;
  },
  fdsFollow: (message) => message.startsWith("F"),
};

const bytes = (text: string) => new TextEncoder().encode(text);
const total = (count: number) => new Uint8Array(new Int32Array([count]).buffer);

/** A connection, and the bare socket at its other end. */
function connect(limits?: ConnectionLimits): { connection: Connection; peer: Fd } & Disposable {
  const [socket, peer] = socketPair();
  const connection = new Connection(socket, limits);
  return {
    connection,
    peer,
    [Symbol.dispose]() {
      connection.close();
      peer.close();
    },
  };
}

/** The same connection as another process would have it, with duplicates of its fds. */
function moveTo(connection: Connection): Connection {
  const state = connection.suspend();
  const copy = <T extends { readonly fds: Fd[] }>(item: T): T => ({ ...item, fds: duplicateAll(item.fds) });
  return new Connection(connection.socket.duplicate(), {}, undefined, {
    ...state,
    pendingFds: duplicateAll(state.pendingFds),
    arrivals: state.arrivals.map(copy),
    outbound: state.outbound.map(copy),
  });
}

/** What a connection does with these sends, each with that many fds: the messages, and why it ended. */
async function feed(sends: [Uint8Array<ArrayBuffer>, number][], limits?: ConnectionLimits) {
  using pair = connect(limits);
  const received: [string, number][] = [];
  for (const [data, count] of sends) {
    const fds = Array.from({ length: count }, () => createEventFd());
    assert.equal(sendMessage(pair.peer, data, fds), data.length);
    closeAll(fds);
  }
  pair.peer.close();
  while (true) {
    const incoming = await pair.connection.receive(codec);
    if (incoming === null) return { received, failure: pair.connection.failure?.message ?? null };
    received.push([incoming.message, incoming.fds.length]);
    closeAll(incoming.fds);
  }
}

Deno.test("messages and fds arrive whole and in order however they are cut", () =>
  withBalancedFds(async () => {
    const stream = frame(bytes("one"));
    assert.deepEqual(
      await feed([
        [stream.slice(0, 1), 0],
        [stream.slice(1, 5), 0],
        [stream.slice(5), 0],
        [frame(bytes("F two fds")), 0],
        [total(2), 2],
        [frame(bytes("F none")), 0],
        [total(0), 0],
        [new Uint8Array([...frame(bytes("three")), ...frame(bytes("F cut"))]), 0],
        [total(3).slice(0, 2), 3],
        [total(3).slice(2), 0],
        [frame(new Uint8Array(0)), 0],
      ]),
      {
        received: [["one", 0], ["F two fds", 2], ["F none", 0], ["three", 0], ["F cut", 3], ["", 0]],
        failure: null,
      },
    );
  }));

Deno.test("more fds than fit into one frame come in several", () =>
  withBalancedFds(async () => {
    using pair = connect();
    using fd = createEventFd();
    pair.connection.send(bytes("F many"), new Array(600).fill(fd));
    using other = new Connection(pair.peer.duplicate());
    const incoming = await other.receive(codec);
    assert.equal(incoming?.fds.length, 600);
    closeAll(incoming!.fds);
  }));

Deno.test("an fd transfer is framed as the reference frames it", () =>
  withBalancedFds(() => {
    using pair = connect();
    using fd = createEventFd();
    pair.connection.send(bytes("F x"), new Array(600).fill(fd));
    const buffer = new Uint8Array(1024);
    assert.equal(receiveMessage(pair.peer, buffer.subarray(0, 7))?.byteLength, 7);
    const frames = [];
    for (let i = 0; i < 3; i++) {
      const received = receiveMessage(pair.peer, buffer.subarray(0, 4))!;
      frames.push([new DataView(buffer.buffer).getInt32(0, true), received.fds.length]);
      closeAll(received.fds);
    }
    assert.deepEqual(frames, [[600, 252], [600, 252], [600, 96]]);
  }));

Deno.test("a message without fds is one frame, with none an empty fd frame behind it", () => {
  using pair = connect();
  const buffer = new Uint8Array(1024);
  pair.connection.send(bytes("ab"));
  assert.equal(receiveMessage(pair.peer, buffer)?.byteLength, 6);
  assert.deepEqual([...buffer.subarray(0, 6)], [0, 0, 0, 2, 97, 98]);
  pair.connection.send(bytes("ab"), []);
  assert.equal(receiveMessage(pair.peer, buffer)?.byteLength, 10);
  assert.deepEqual([...buffer.subarray(0, 10)], [0, 0, 0, 2, 97, 98, 0, 0, 0, 0]);
});

for (
  const [name, sends, expected] of [
    [
      "a length over the limit",
      [[new Uint8Array([0x7f, 0xff, 0xff, 0xff]), 0]],
      /message of 2147483647 bytes: the limit/,
    ],
    ["a stream that ends inside a header", [[new Uint8Array([0, 0]), 0]], /ended inside a message/],
    ["a stream that ends inside a message", [[frame(bytes("abc")).slice(0, 5), 0]], /ended inside a message/],
    ["a stream that ends before the fds", [[frame(bytes("F")), 0]], /ended inside a message/],
    [
      "a stream that ends between fd frames",
      [[frame(bytes("F")), 0], [total(300), 252]],
      /ended inside a message/,
    ],
    ["a message that cannot be decoded", [[frame(bytes("bad")), 0]], /it is bad/],
    ["fds inside a message", [[frame(bytes("plain")), 2]], /fds that came inside a message/],
    ["missing fds", [[frame(bytes("F")), 0], [total(2), 0]], /2 announced, 0 came/],
    ["extra fds", [[frame(bytes("F")), 0], [total(1), 3]], /1 announced, 3 came/],
    ["fds where none were announced", [[frame(bytes("F")), 0], [total(0), 1]], /0 announced, 1 came/],
    ["a negative number of fds", [[frame(bytes("F")), 0], [total(-1), 1]], /-1 fds/],
    [
      "an absurd number of fds",
      [[frame(bytes("F")), 0], [total(0x7fffffff), 1]],
      /2147483647 fds: the limit is 16384/,
    ],
  ] satisfies [string, [Uint8Array<ArrayBuffer>, number][], RegExp][]
) {
  Deno.test(`${name} closes the connection with a reason and leaks nothing`, () =>
    withBalancedFds(async () => {
      const { received, failure } = await feed(sends);
      assert.deepEqual(received, []);
      assert.match(failure ?? "no failure", expected);
    }));
}

Deno.test("a peer that does not read is dropped when the queue is full, and nobody waits for it", () =>
  withBalancedFds(async () => {
    using pair = connect({ outboundBytesMax: 1 << 20 });
    const message = new Uint8Array(64 * 1024);
    for (let i = 0; i < 1000 && !pair.connection.closed; i++) pair.connection.send(message);
    assert.match(pair.connection.failure?.message ?? "", /the peer does not read/);
    await pair.connection.drained();
    pair.connection.send(message);
  }));

Deno.test("fds wait as duplicates, so that the sender may close its own", () =>
  withBalancedFds(async () => {
    using pair = connect();
    const filler = new Uint8Array(1 << 20);
    pair.connection.send(filler);
    const fd = createEventFd();
    const { inode } = fd.stat();
    pair.connection.send(bytes("F late"), [fd]);
    fd.close();
    using other = new Connection(pair.peer.duplicate());
    assert.equal((await other.receive(codec))?.message.length, filler.length);
    const incoming = await other.receive(codec);
    assert.equal(incoming?.message, "F late");
    assert.equal(incoming.fds[0].stat().inode, inode);
    closeAll(incoming.fds);
  }));

Deno.test("what waits to be sent is closed with the connection", () =>
  withBalancedFds(() => {
    using pair = connect();
    using fd = createEventFd();
    pair.connection.send(new Uint8Array(1 << 20));
    for (let i = 0; i < 10; i++) pair.connection.send(bytes("F"), [fd]);
    pair.connection.close();
  }));

Deno.test("drained() resolves when the peer has read", async () => {
  using pair = connect();
  const message = new Uint8Array(1 << 20);
  pair.connection.send(message);
  assert(pair.connection.outboundBytes > 0);
  using other = new Connection(pair.peer.duplicate());
  const [incoming] = await Promise.all([other.receive(codec), pair.connection.drained()]);
  assert.equal(incoming?.message.length, message.length);
  assert.equal(pair.connection.outboundBytes, 0);
});

Deno.test("memory grows with what arrives, not with what is announced", async () => {
  using pair = connect();
  sendMessage(pair.peer, new Uint8Array([0x03, 0, 0, 0, 1, 2, 3]));
  assert.equal(pair.connection.tryReceive(codec), null);
  assert(!pair.connection.closed);
  pair.peer.close();
  assert.equal(await pair.connection.receive(codec), null);
});

Deno.test("a connection goes on elsewhere at any byte: nothing is lost, twice or out of order", () =>
  withBalancedFds(async () => {
    const sends: [Uint8Array<ArrayBuffer>, number][] = [
      [frame(bytes("one")), 0],
      [frame(bytes("F three fds, in two frames")), 0],
      [total(3), 2],
      [total(3), 1],
      [frame(bytes("two")), 0],
      [frame(bytes("F one")), 0],
      [total(1), 1],
    ];
    const pieces = sends.flatMap(([data, count]): [Uint8Array<ArrayBuffer>, number][] =>
      Array.from(data, (_, i) => [data.slice(i, i + 1), i === 0 ? count : 0])
    );
    for (let moveAt = 0; moveAt <= pieces.length; moveAt++) {
      using pair = connect();
      let { connection } = pair;
      const received: [string, number][] = [];
      const take = () => {
        for (let next = connection.tryReceive(codec); next !== null; next = connection.tryReceive(codec)) {
          received.push([next.message, next.fds.length]);
          closeAll(next.fds);
        }
      };
      for (const [i, [data, count]] of pieces.entries()) {
        const fds = Array.from({ length: count }, () => createEventFd());
        sendMessage(pair.peer, data, fds);
        closeAll(fds);
        // What is received, and what is not yet, at the moment of the move.
        if (i % 2 === 0) take();
        if (i !== moveAt) continue;
        const moved = moveTo(connection);
        connection.close();
        connection = moved;
        take();
        assert.deepEqual(connection.suspended, true);
        connection.resume();
      }
      pair.peer.close();
      while (!connection.closed) {
        const next = await connection.receive(codec);
        if (next === null) break;
        received.push([next.message, next.fds.length]);
        closeAll(next.fds);
      }
      assert.equal(connection.failure, null);
      assert.deepEqual(received, [["one", 0], ["F three fds, in two frames", 3], ["two", 0], ["F one", 1]]);
    }
  }));

Deno.test("what a connection could not send yet is sent by the one that goes on with it", () =>
  withBalancedFds(async () => {
    using pair = connect();
    const peer = new Connection(pair.peer);
    const message = (i: number) => new Uint8Array(100_000).fill(i);
    const echo: Codec<Uint8Array> = { decode: (bytes) => bytes, fdsFollow: () => true };
    using fd = createEventFd();
    let { connection } = pair;
    const sent = 30;
    for (let i = 0; i < sent; i++) {
      connection.send(message(i), i % 3 === 0 ? [fd, fd] : []);
      if (i % 7 !== 0) continue;
      const moved = moveTo(connection);
      connection.close();
      connection = moved;
      if (i % 2 === 0) connection.resume();
    }
    connection.resume();
    for (let i = 0; i < sent; i++) {
      const { message: received, fds } = (await peer.receive(echo))!;
      assert.deepEqual(received, message(i));
      assert.equal(fds.length, i % 3 === 0 ? 2 : 0);
      closeAll(fds);
    }
    connection.close();
    peer.close();
  }));

Deno.test("a suspended connection that is resumed goes on as if nothing had been", () =>
  withBalancedFds(async () => {
    using pair = connect();
    const { connection } = pair;
    const waiting = connection.receive(codec);
    connection.suspend();
    sendMessage(pair.peer, frame(bytes("early")), []);
    connection.send(bytes("late"));
    assert.equal(connection.tryReceive(codec), null);
    assert.equal(receiveMessage(pair.peer, new Uint8Array(100)), null);
    connection.resume();
    assert.equal((await waiting)!.message, "early");
    assert.equal(receiveMessage(pair.peer, new Uint8Array(100))!.byteLength, 8);
  }));
