import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { frequencyOf, renderFrequency } from "../../inspect/hz.ts";
import { hexText, jsonText, messageText, protobufText, utf8Text } from "../../inspect/message_text.ts";
import { ChannelObserver, type ObservedMessage } from "../../inspect/observer.ts";
import {
  renderWatch,
  sortWatched,
  type WatchedChannel,
  Watcher,
  type WatchSample,
} from "../../inspect/watch.ts";
import { colourStyle, displayWidth, plainStyle } from "../../inspect/table.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { Ccb, Slot } from "../../shm/layout.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { send } from "../shm/local_channel.ts";
import { Peer } from "./peer.ts";
import { RecordedShadow } from "./recorded_shadow.ts";
import { sightOf } from "./sights.ts";

const text = (messages: readonly ObservedMessage[]) =>
  messages.map(({ ordinal, payload }) => `${ordinal} ${utf8Text(payload!)}`);

Deno.test("an observer sees each message once, in order, from the moment on that it begins", () =>
  withBalancedFds(async () => {
    using shadow = new RecordedShadow();
    const publisher = shadow.publisher("/robot/odometry", 0);
    send(publisher, "before");
    using sight = await sightOf(shadow);
    using observer = new ChannelObserver(sight, sight.dump.channels.get("/robot/odometry")!);
    assert.deepEqual(observer.poll(true), []);
    for (const word of ["one", "two"]) send(publisher, word);
    assert.deepEqual(text(observer.poll(true)), ["2 one", "3 two"]);
    assert.deepEqual(observer.poll(true), []);
    send(publisher, "x".repeat(1000));
    assert.deepEqual(observer.poll(true).map(({ bytes, payload }) => [bytes, payload!.length]), [[
      1000,
      1000,
    ]]);
    assert.equal(observer.missed, 0);
  }));

Deno.test("an observer finds messages behind checksums and metadata of which a C++ shadow does not hear", async () => {
  using shadow = new RecordedShadow();
  const publisher = shadow.publisher("/robot/odometry", 0, { checksumBytes: 20, metadataBytes: 16 });
  using sight = await sightOf(shadow);
  const { info } = sight.dump.channels.get("/robot/odometry")!;
  assert.deepEqual([info.checksumSize, info.metadataSize], [4, 0]);
  using observer = new ChannelObserver(sight, sight.dump.channels.get("/robot/odometry")!);
  for (const word of ["one", "two"]) send(publisher, word);
  const seen = observer.poll(true);
  assert.deepEqual(text(seen), ["1 one", "2 two"]);
  assert.deepEqual(seen.map(({ metadata }) => metadata.length), [16, 16]);
});

Deno.test("an observer counts what was overwritten before it looked", async () => {
  using shadow = new RecordedShadow();
  const publisher = shadow.publisher("/robot/odometry", 0);
  using sight = await sightOf(shadow);
  using observer = new ChannelObserver(sight, sight.dump.channels.get("/robot/odometry")!);
  for (let i = 1; i <= 20; i++) send(publisher, `${i}`);
  const seen = observer.poll(true);
  assert.equal(seen.at(-1)?.ordinal, 20);
  assert.equal(seen.length + observer.missed, 20);
  assert(observer.missed > 0);
});

Deno.test("an observer of a virtual channel sees only its messages", async () => {
  using shadow = new RecordedShadow();
  const front = shadow.publisher("/sensors/front", 0, { vchanId: 0 });
  const back = shadow.publisher("/sensors/back", 1, { vchanId: 1 });
  using sight = await sightOf(shadow);
  using observer = new ChannelObserver(sight, sight.dump.channels.get("/sensors/back")!);
  send(front, "front");
  send(back, "back");
  assert.deepEqual(text(observer.poll(true)), ["1 back"]);
});

Deno.test("an observer changes nothing in a channel's memory", async () => {
  using shadow = new RecordedShadow();
  const { ccbFd, bytes } = shadow.blocks("/robot/odometry");
  send(shadow.publisher("/robot/odometry", 0), "one");
  using memory = Mapping.map(ccbFd, bytes, { writable: false });
  const before = memory.bytes.slice();
  using sight = await sightOf(shadow);
  using observer = new ChannelObserver(sight, sight.dump.channels.get("/robot/odometry")!);
  observer.poll(true);
  assert.deepEqual(memory.bytes.slice(), before);
});

Deno.test("an observer takes no damaged slot for a message, and goes on with the others", async () => {
  using shadow = new RecordedShadow();
  const publisher = shadow.publisher("/robot/odometry", 0);
  using sight = await sightOf(shadow);
  using observer = new ChannelObserver(sight, sight.dump.channels.get("/robot/odometry")!);
  for (const word of ["one", "two", "three"]) send(publisher, word);
  using memory = Mapping.map(shadow.blocks("/robot/odometry").ccbFd, Ccb.slots + 3 * Slot.bytes);
  memory.view.setBigUint64(Ccb.slots + Slot.messageSize, 1n << 60n, true);
  memory.view.setInt16(Ccb.slots + Slot.bytes + Slot.bufferIndex, 999, true);
  assert.deepEqual(text(observer.poll(true)), ["3 three"]);
  assert.equal(observer.missed, 2);
});

const message = (ordinal: number, ms: number): ObservedMessage => ({
  ordinal,
  timestampNs: ms * 1e6,
  bytes: 1,
  payload: null,
  metadata: new Uint8Array(),
  activation: false,
});

Deno.test("a frequency counts all messages, and measures gaps between neighbours only", () => {
  const seen = [message(2, 20), message(3, 30), message(6, 90)];
  const frequency = frequencyOf("/a", seen, 2, 100, message(1, 10));
  assert.deepEqual(frequency, {
    schemaVersion: 1,
    channel: "/a",
    overMs: 100,
    messages: 5,
    missed: 2,
    perSecond: 50,
    gapMs: { min: 10, mean: 10, max: 10, deviation: 0 },
  });
  assert.equal(
    renderFrequency(frequency, 80),
    "/a  50.0 Hz  gap 10.0 ms to 10.0 ms, mean 10.0 ms ± 0 µs  2 messages too fast to see\n",
  );
  const long = renderFrequency({ ...frequency, channel: `/a/${"long/".repeat(20)}name`, missed: 0 }, 80);
  assert.match(long, /^\/a\/long.*….*name {2}50\.0 Hz {2}gap /);
  assert.equal(displayWidth(long.trimEnd()), 80);
  assert.equal(renderFrequency(frequencyOf("/a", [], 0, 100, null), 80), "/a  0 Hz\n");
});

Deno.test("messages are shown in hexadecimal, as text, JSON or protobuf", async () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  assert.equal(
    messageText({ ...message(7, 0), bytes: 3, payload: bytes("hi\n") }, hexText),
    "7  3 B\n  000000  68 69 0a                                         hi.\n",
  );
  assert.match(hexText(new Uint8Array(2000)), /\n {2}and 976 more bytes$/);
  assert.equal(utf8Text(bytes("a\x1b[2J")), "a\\u{1b}[2J");
  assert.equal(jsonText(bytes('{ "a":\n1 }')), '{"a":1}');
  assert.equal(jsonText(bytes("{a")), "{a  (no JSON)");
  const set = toBinary(
    FileDescriptorSetSchema,
    create(FileDescriptorSetSchema, {
      file: [{
        name: "p.proto",
        package: "p",
        syntax: "proto3",
        messageType: [{ name: "M", field: [{ name: "n", number: 1, type: 5, label: 1, jsonName: "n" }] }],
      }],
    }),
  );
  const format = await protobufText(set, "p.M");
  assert.equal(format(new Uint8Array([8, 42])), '{"n":42}');
  assert.match(format(bytes("\xff")), /\(no p\.M: /);
  await assert.rejects(protobufText(set, "p.N"), /the descriptor has no type p\.N; it has p\.M/);
});

const channel = (name: string, init: Partial<WatchedChannel> = {}): WatchedChannel => ({
  name,
  mux: null,
  numPublishers: 1,
  numSubscribers: 1,
  messages: 10,
  drops: 0,
  messagesPerSecond: 1,
  bytesPerSecond: 100,
  dropsPerSecond: 0,
  ...init,
});

const sample: WatchSample = {
  schemaVersion: 1,
  source: { kind: "shadow", socket: "/shadow", pid: 1 },
  server: { pid: 2, alive: true },
  overMs: 1000,
  stale: null,
  channels: [
    channel("/b", { messagesPerSecond: 250 }),
    channel("/a", { drops: 3, dropsPerSecond: 2 }),
    channel("/c"),
  ],
  attention: { unheard: [], dropping: [], holding: [] },
  programs: null,
};
const options = { width: 80, style: plainStyle, order: "name", height: 24, footer: "" } as const;

Deno.test("what is watched fits its terminal, and is sorted as asked", () => {
  const names = (order: Parameters<typeof sortWatched>[1]) =>
    sortWatched(sample.channels, order).map((it) => it.name);
  assert.deepEqual(names("name"), ["/a", "/b", "/c"]);
  assert.deepEqual(names("messages"), ["/b", "/a", "/c"]);
  assert.deepEqual(names("drops"), ["/a", "/b", "/c"]);
  assert.equal(
    renderWatch(sample, options),
    "Shadow /shadow, server running (pid 2), 252 messages/s\n" +
      "\n" +
      "CHANNEL  PUBS  SUBS  MESSAGES/S  BYTES/S  DROPS/S  MESSAGES  DROPS\n" +
      "/a          1     1         1.0    100 B      2.0        10      3\n" +
      "/b          1     1         250    100 B        0        10      0\n" +
      "/c          1     1         1.0    100 B        0        10      0\n",
  );
  const many = { ...sample, channels: Array.from({ length: 100 }, (_, i) => channel(`/channel/${i}`)) };
  const lines = renderWatch(many, { ...options, footer: "q quit" }).trimEnd().split("\n");
  assert.deepEqual([lines.length, lines.at(-3), lines.at(-1)], [24, "and 82 more", "q quit"]);
  for (const line of lines) assert(displayWidth(line) <= 80, line);
  assert(
    renderWatch({ ...sample, server: { pid: 2, alive: false } }, { ...options, style: colourStyle }).includes(
      "DOWN",
    ),
  );
  assert.match(renderWatch({ ...sample, stale: "nobody there" }, options), /^Outdated: nobody there$/m);
});

Deno.test("what needs looking at is said in a line each, as far as it fits", () => {
  const attention = {
    unheard: Array.from({ length: 40 }, (_, i) => `/unheard/${i}`),
    dropping: ["/a"],
    holding: [{ channel: "/c", held: 8, numSlots: 8, subscriber: 3, pid: 42 }],
  };
  const lines = renderWatch({ ...sample, attention }, options).split("\n");
  assert.deepEqual(lines.slice(1, 4), [
    "DROPPING  /a",
    "SLOTS HELD  /c 8 of 8 by subscriber 3 (pid 42)",
    "NO SUBSCRIBER  /unheard/0, /unheard/1, /unheard/2, /unheard/3 and 36 more",
  ]);
  for (const line of lines) assert(displayWidth(line) <= 80, line);
});

Deno.test("a recorded C++ system is watched: who holds slots, who is not heard, how many messages came", () =>
  withBalancedFds(async () => {
    using shadow = new RecordedShadow();
    const writer = shadow.publisher("/robot/odometry", 0);
    const reader = shadow.subscriber("/robot/odometry", 1, { maxActiveMessages: 8 });
    using peer = new Peer((connection) => shadow.send(connection));
    using watcher = new Watcher(peer.socket, 60_000);
    const first = await watcher.sample();
    assert.deepEqual(first.programs?.shadows.map(({ kind }) => kind), ["reference"]);
    for (const word of ["one", "two", "three", "four"]) send(writer, word);
    for (let i = 0; i < 4; i++) reader.readNext();
    const next = await watcher.sample();
    const { messages, messagesPerSecond } = next.channels.find(({ name }) => name === "/robot/odometry")!;
    assert(messages === 4 && messagesPerSecond! > 0);
    assert.deepEqual(
      next.attention.holding.map((
        { channel, held, numSlots, subscriber },
      ) => [channel, held, numSlots, subscriber]),
      [["/robot/odometry", 4, 8, 1]],
    );
    assert.deepEqual(next.attention.unheard, ["/split"]);
    assert.match(
      renderWatch(next, options),
      /^SLOTS HELD {2}\/robot\/odometry 4 of 8 by subscriber 1 \(pid 4712\)$/m,
    );
  }));

Deno.test("nobody to watch is an error at once", async () => {
  using watcher = new Watcher(uniqueSocket("nobody"), 1000);
  await assert.rejects(watcher.sample(), /nobody listens there/);
});
