/**
 * Recordings: messages of channels in a file, with a checksum for each (docs/inspect.md says byte by byte how).
 *
 * A recording is a head of eight bytes and then records; each has its length, kind and CRC32 in front. So whatever is
 * cut off or changed is noticed at its record, and what is before it is good. Numbers are little-endian.
 */

import { crc32 } from "../shm/checksum.ts";
import type { ObservedMessage } from "./observer.ts";

/** Of the format. */
export const RECORDING_VERSION = 1;

const HEAD = new Uint8Array([...new TextEncoder().encode("SUBSREC"), RECORDING_VERSION]);
const RECORD_HEAD_BYTES = 12;
const MESSAGE_HEAD_BYTES = 32;
/** Longest record: a slot and its metadata fit. A file that claims more is damaged. */
const BODY_BYTES_MAX = 2 ** 31;
const READ_BYTES = 256 * 1024;

const Kind = { start: 1, channel: 2, message: 3, end: 4 } as const;
const ACTIVATION = 1;

/** What a recording begins with. */
export interface RecordingStart {
  /** ISO 8601. */
  readonly recordedAt: string;
  /** Who was looked at. */
  readonly source: string;
}

/** A channel that is recorded: what it takes to make it again. */
export interface RecordedChannel {
  readonly name: string;
  /** Base64. */
  readonly type: string;
  readonly numSlots: number;
  readonly reliable: boolean;
  readonly checksumBytes: number;
  readonly metadataBytes: number;
  /** Empty outside of multiplexers. */
  readonly mux: string;
  readonly vchanId: number;
}

/** A message as it was recorded. */
export interface RecordedMessage {
  /** Index of its channel, in the order of the recording. */
  readonly channel: number;
  readonly ordinal: number;
  readonly timestampNs: number;
  readonly activation: boolean;
  readonly metadata: Uint8Array<ArrayBuffer>;
  readonly payload: Uint8Array<ArrayBuffer>;
}

/** What a recording ends with, where it was not broken off. */
export interface RecordingEnd {
  readonly messages: number;
  /** Messages that were too fast to be seen. */
  readonly missed: number;
}

/** A record. */
export type RecordingRecord =
  | { readonly kind: "start"; readonly start: RecordingStart }
  | { readonly kind: "channel"; readonly channel: RecordedChannel }
  | { readonly kind: "message"; readonly message: RecordedMessage }
  | { readonly kind: "end"; readonly end: RecordingEnd };

/** Where bytes go: a file, opened to write. */
export interface ByteSink {
  writeSync(bytes: Uint8Array): number;
}

/** Where bytes come from: a file, opened to read. */
export interface ByteSource {
  /** Returns how many bytes were stored; null at the end. */
  readSync(into: Uint8Array): number | null;
}

/** Writes a recording. */
export class RecordingWriter {
  /** Bytes so far. */
  bytes = 0;
  #messages = 0;

  #channels = 0;

  constructor(private readonly sink: ByteSink, start: RecordingStart) {
    this.#write(HEAD);
    this.#record(Kind.start, json(start));
  }

  /** Adds a channel, before its first message. Returns its index. */
  channel(channel: RecordedChannel): number {
    this.#record(Kind.channel, json(channel));
    return this.#channels++;
  }

  /** Messages so far. */
  get messages(): number {
    return this.#messages;
  }

  /** @param channel Its index. */
  write(channel: number, { ordinal, timestampNs, activation, metadata, payload }: ObservedMessage): void {
    const content = payload ?? new Uint8Array();
    const body = new Uint8Array(MESSAGE_HEAD_BYTES + metadata.length + content.length);
    const view = new DataView(body.buffer);
    view.setUint32(0, channel, true);
    view.setUint32(4, activation ? ACTIVATION : 0, true);
    view.setBigUint64(8, BigInt(ordinal), true);
    view.setBigUint64(16, BigInt(timestampNs), true);
    view.setUint32(24, metadata.length, true);
    body.set(metadata, MESSAGE_HEAD_BYTES);
    body.set(content, MESSAGE_HEAD_BYTES + metadata.length);
    this.#record(Kind.message, body);
    this.#messages++;
  }

  /** Says that the recording is whole. */
  end(missed: number): void {
    this.#record(Kind.end, json({ messages: this.#messages, missed }));
  }

  #record(kind: number, body: Uint8Array<ArrayBuffer>): void {
    const head = new Uint8Array(RECORD_HEAD_BYTES);
    const view = new DataView(head.buffer);
    view.setUint32(0, body.length, true);
    view.setUint32(4, kind, true);
    head.set(checksumOf(head.subarray(0, 8), body), 8);
    this.#write(head);
    this.#write(body);
  }

  #write(bytes: Uint8Array): void {
    for (let written = 0; written < bytes.length;) written += this.sink.writeSync(bytes.subarray(written));
    this.bytes += bytes.length;
  }
}

function json(value: RecordingStart | RecordedChannel | RecordingEnd): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(value));
}

function checksumOf(head: Uint8Array, body: Uint8Array): Uint8Array {
  const checksum = new Uint8Array(4);
  crc32(checksum, head, new Uint8Array(), body);
  return checksum;
}

/** Reads a recording, a record at a time. Never takes more memory than the file is long. */
export class RecordingReader {
  #buffer = new Uint8Array(READ_BYTES);
  #start = 0;
  #end = 0;
  #goodBytes = 0;
  #problem: string | null = null;
  #channels = 0;
  #whole = false;

  /** @param bytes How long the file is. */
  constructor(private readonly source: ByteSource, readonly bytes: number) {
    const head = this.#take(HEAD.length);
    if (head === null || !HEAD.subarray(0, -1).every((byte, i) => byte === head[i])) {
      this.#problem = "it is no recording";
    } else if (head.at(-1) !== RECORDING_VERSION) {
      this.#problem = `it is a recording of version ${
        head.at(-1)
      }, and this program knows ${RECORDING_VERSION}`;
    }
    if (this.#problem === null) this.#goodBytes = HEAD.length;
  }

  /** How far it is good. */
  get goodBytes(): number {
    return this.#goodBytes;
  }

  /** What is wrong behind `goodBytes`; null where nothing is, so far. */
  get problem(): string | null {
    return this.#problem;
  }

  /** The next record; null at the end, or where the recording is damaged: see `problem`. */
  next(): RecordingRecord | null {
    if (this.#problem !== null || this.#whole) return null;
    const record = this.#read();
    if (typeof record === "string") this.#problem = record;
    if (typeof record === "string") return null;
    if (record.kind === "channel") this.#channels++;
    this.#whole = record.kind === "end";
    return record;
  }

  #read(): RecordingRecord | string {
    const left = this.bytes - this.#goodBytes;
    if (left === 0) return "it ends without an end: whoever recorded it was killed, or it was cut off";
    const head = this.#take(RECORD_HEAD_BYTES)?.slice();
    if (head === undefined) return "it was cut off inside a record";
    const view = new DataView(head.buffer);
    const length = view.getUint32(0, true), kind = view.getUint32(4, true);
    if (length > BODY_BYTES_MAX || length > left - RECORD_HEAD_BYTES) {
      return "it was cut off inside a record, or the head of the record is damaged";
    }
    const body = this.#take(length);
    if (body === null) return "it was cut off inside a record";
    const told = head.subarray(8);
    if (!checksumOf(head.subarray(0, 8), body).every((byte, i) => byte === told[i])) {
      return "a record does not match its checksum";
    }
    const record = decode(kind, body, this.#channels);
    if (record === null) return "a record makes no sense";
    this.#goodBytes += RECORD_HEAD_BYTES + length;
    return record;
  }

  /** The next so many bytes, to be used until the next call; null where there are fewer. */
  #take(count: number): Uint8Array<ArrayBuffer> | null {
    if (this.#end - this.#start < count) this.#fill(count);
    if (this.#end - this.#start < count) return null;
    this.#start += count;
    return this.#buffer.subarray(this.#start - count, this.#start);
  }

  #fill(count: number): void {
    const target = count > this.#buffer.length ? new Uint8Array(count) : this.#buffer;
    target.set(this.#buffer.subarray(this.#start, this.#end));
    this.#buffer = target;
    this.#end -= this.#start;
    this.#start = 0;
    while (this.#end < count) {
      const stored = this.source.readSync(this.#buffer.subarray(this.#end));
      if (stored === null || stored === 0) return;
      this.#end += stored;
    }
  }
}

function decode(kind: number, body: Uint8Array<ArrayBuffer>, channels: number): RecordingRecord | null {
  if (kind === Kind.message) {
    const message = decodeMessage(body);
    return message === null || message.channel >= channels ? null : { kind: "message", message };
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return null;
  }
  switch (kind) {
    case Kind.start:
      return has<RecordingStart>(value, { recordedAt: "string", source: "string" })
        ? { kind: "start", start: value }
        : null;
    case Kind.channel:
      return has<RecordedChannel>(value, channelShape) ? { kind: "channel", channel: value } : null;
    case Kind.end:
      return has<RecordingEnd>(value, { messages: "number", missed: "number" })
        ? { kind: "end", end: value }
        : null;
    default:
      return null;
  }
}

const channelShape: Readonly<Record<keyof RecordedChannel, string>> = {
  name: "string",
  type: "string",
  numSlots: "number",
  reliable: "boolean",
  checksumBytes: "number",
  metadataBytes: "number",
  mux: "string",
  vchanId: "number",
};

/** Whether a value has members of these types. */
function has<T>(value: unknown, shape: Readonly<Record<keyof T & string, string>>): value is T {
  if (typeof value !== "object" || value === null) return false;
  const members = value as Readonly<Record<string, unknown>>;
  return Object.entries(shape).every(([name, type]) => {
    const actual: string = typeof members[name];
    return actual === type;
  });
}

function decodeMessage(body: Uint8Array<ArrayBuffer>): RecordedMessage | null {
  if (body.length < MESSAGE_HEAD_BYTES) return null;
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const payloadAt = MESSAGE_HEAD_BYTES + view.getUint32(24, true);
  if (payloadAt > body.length) return null;
  return {
    channel: view.getUint32(0, true),
    activation: (view.getUint32(4, true) & ACTIVATION) !== 0,
    ordinal: Number(view.getBigUint64(8, true)),
    timestampNs: Number(view.getBigUint64(16, true)),
    metadata: body.slice(MESSAGE_HEAD_BYTES, payloadAt),
    payload: body.slice(payloadAt),
  };
}

/** What a look through a whole recording finds. */
export interface RecordingSummary {
  readonly start: RecordingStart | null;
  readonly channels: readonly (RecordedChannel & {
    readonly messages: number;
    readonly activations: number;
    readonly maxMessageBytes: number;
  })[];
  readonly messages: number;
  /** From the first message to the last. */
  readonly durationNs: number;
  readonly firstNs: number;
  /** null where it was broken off. */
  readonly missed: number | null;
  readonly bytes: number;
  readonly goodBytes: number;
  readonly problem: string | null;
}

/**
 * Reads all of a recording and checks it.
 *
 * @param progress Told how far it is, now and then.
 */
export function summaryOf(
  reader: RecordingReader,
  progress: (bytes: number) => void = () => {},
): RecordingSummary {
  let start: RecordingStart | null = null, missed: number | null = null;
  const channels: {
    channel: RecordedChannel;
    messages: number;
    activations: number;
    maxMessageBytes: number;
  }[] = [];
  let messages = 0, firstNs = Infinity, lastNs = 0;
  for (let record = reader.next(); record !== null; record = reader.next()) {
    if (record.kind === "start") start = record.start;
    else if (record.kind === "end") missed = record.end.missed;
    else if (record.kind === "channel") {
      channels.push({ channel: record.channel, messages: 0, activations: 0, maxMessageBytes: 0 });
    } else {
      const { channel, activation, timestampNs, payload } = record.message;
      const counted = channels[channel];
      messages++;
      counted.messages++;
      if (activation) counted.activations++;
      counted.maxMessageBytes = Math.max(counted.maxMessageBytes, payload.length);
      firstNs = Math.min(firstNs, timestampNs);
      lastNs = Math.max(lastNs, timestampNs);
      progress(reader.goodBytes);
    }
  }
  return {
    start,
    channels: channels.map(({ channel, ...counts }) => ({ ...channel, ...counts })),
    messages,
    firstNs: messages === 0 ? 0 : firstNs,
    durationNs: messages === 0 ? 0 : lastNs - firstNs,
    missed,
    bytes: reader.bytes,
    goodBytes: reader.goodBytes,
    problem: reader.problem,
  };
}
