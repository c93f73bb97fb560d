import assert from "node:assert/strict";
import type { ObservedMessage } from "../../inspect/observer.ts";
import {
  type ByteSource,
  type RecordedChannel,
  type RecordedMessage,
  RecordingReader,
  RecordingWriter,
  summaryOf,
} from "../../inspect/recording.ts";

const channel: RecordedChannel = {
  name: "/imu",
  type: btoa("robot.Imu"),
  numSlots: 16,
  reliable: true,
  checksumBytes: 4,
  metadataBytes: 2,
  mux: "",
  vchanId: -1,
};

function message(ordinal: number, text: string, activation = false): ObservedMessage {
  const payload = new TextEncoder().encode(text);
  return {
    ordinal,
    timestampNs: 5e15 + ordinal * 1e6,
    bytes: payload.length,
    payload,
    metadata: new Uint8Array([7, ordinal]),
    activation,
  };
}

/** A recording in memory; `end` may be left out, as of one who was killed. */
function recorded(messages: readonly ObservedMessage[], end = true): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const sink = {
    // A disk takes as much at a time as it likes.
    writeSync(bytes: Uint8Array) {
      const taken = Math.min(bytes.length, 7);
      parts.push(bytes.slice(0, taken));
      return taken;
    },
  };
  const writer = new RecordingWriter(sink, { recordedAt: "2026-01-01T00:00:00Z", source: "/shadow" });
  const index = writer.channel(channel);
  for (const it of messages) writer.write(index, it);
  if (end) writer.end(3);
  const bytes = new Uint8Array(writer.bytes);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  assert.equal(at, bytes.length);
  return bytes;
}

/** A file that gives few bytes at a time. */
function fileOf(bytes: Uint8Array, atATime = 1000): ByteSource {
  let at = 0;
  return {
    readSync(into) {
      if (at === bytes.length) return null;
      const taken = bytes.subarray(at, at + Math.min(into.length, atATime));
      into.set(taken);
      at += taken.length;
      return taken.length;
    },
  };
}

function messagesOf(reader: RecordingReader): RecordedMessage[] {
  const messages: RecordedMessage[] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) {
    if (record.kind === "message") messages.push(record.message);
  }
  return messages;
}

const all = [message(1, "", true), message(2, "one"), message(3, "x".repeat(600_000)), message(5, "three")];

Deno.test("what was recorded is read as it was, with metadata, ordinals, times and activation", () => {
  const bytes = recorded(all);
  const reader = new RecordingReader(fileOf(bytes), bytes.length);
  const seen = messagesOf(reader);
  assert.deepEqual(
    seen,
    all.map(({ ordinal, timestampNs, activation, metadata, payload }) => ({
      channel: 0,
      ordinal,
      timestampNs,
      activation,
      metadata,
      payload,
    })),
  );
  assert.deepEqual([reader.problem, reader.goodBytes], [null, bytes.length]);
});

Deno.test("a summary tells what is in a recording", () => {
  const bytes = recorded(all);
  const told: number[] = [];
  const summary = summaryOf(new RecordingReader(fileOf(bytes), bytes.length), (done) => told.push(done));
  assert.deepEqual(summary, {
    start: { recordedAt: "2026-01-01T00:00:00Z", source: "/shadow" },
    channels: [{ ...channel, messages: 4, activations: 1, maxMessageBytes: 600_000 }],
    messages: 4,
    firstNs: 5e15 + 1e6,
    durationNs: 4e6,
    missed: 3,
    bytes: bytes.length,
    goodBytes: bytes.length,
    problem: null,
  });
  assert.equal(told.length, 4);
});

Deno.test("a recording that breaks off anywhere is good up to there, and says so", () => {
  const short = [message(1, "one"), message(2, "two"), message(3, "three")];
  const bytes = recorded(short, false);
  for (let length = 0; length < bytes.length; length++) {
    const reader = new RecordingReader(fileOf(bytes.subarray(0, length)), length);
    const seen = messagesOf(reader);
    assert(seen.length < 3 && reader.problem !== null, `${length}`);
    assert(reader.goodBytes <= length);
    const again = new RecordingReader(fileOf(bytes), reader.goodBytes);
    assert.equal(messagesOf(again).length, seen.length);
  }
  const whole = new RecordingReader(fileOf(bytes), bytes.length);
  assert.equal(messagesOf(whole).length, 3);
  assert.match(whole.problem!, /^it ends without an end/);
});

Deno.test("no changed byte goes unnoticed, wherever it is", () => {
  const bytes = recorded([message(1, "one"), message(2, "two")]);
  for (let i = 0; i < bytes.length; i++) {
    const damaged = bytes.slice();
    damaged[i] ^= 0x10;
    const reader = new RecordingReader(fileOf(damaged), damaged.length);
    const seen = messagesOf(reader);
    assert(reader.problem !== null, `byte ${i}`);
    assert(reader.goodBytes <= i);
    seen.forEach(({ payload }, n) => assert.equal(new TextDecoder().decode(payload), ["one", "two"][n]));
  }
});

Deno.test("what a file claims takes no memory that it is not long", () => {
  const bytes = recorded([]);
  const view = new DataView(bytes.buffer);
  view.setUint32(8, 0x7000_0000, true);
  const reader = new RecordingReader(fileOf(bytes), bytes.length);
  assert.equal(reader.next(), null);
  assert.match(reader.problem!, /^it was cut off inside a record/);
});

Deno.test("other files and other versions are told apart", () => {
  const text = new TextEncoder().encode("import assert from node;");
  assert.equal(new RecordingReader(fileOf(text), text.length).problem, "it is no recording");
  const future = recorded([]);
  future[7] = 2;
  assert.equal(
    new RecordingReader(fileOf(future), future.length).problem,
    "it is a recording of version 2, and this program knows 1",
  );
  assert.equal(new RecordingReader(fileOf(new Uint8Array()), 0).problem, "it is no recording");
});
