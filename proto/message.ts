/**
 * Protocol Buffers from tables: what `proto/subspace.ts` declares is encoded and decoded here.
 *
 * Messages are those of protobuf-es (`proto/subspace_pb.ts` has their types), unknown fields included; only what the
 * wire contract uses is there: proto3 without maps, floats, fixed-size and optional fields. Its own code, because
 * building protobuf-es's descriptors takes longer than all else that a program does at its start.
 */

import type { Message, MessageInitShape } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { Reader, WireType } from "./reader.ts";
import { Writer } from "./writer.ts";

/** A message whose members are looked up by name. */
type Members = Message & Record<string, unknown>;

/** A message of which all that is left out has its default. */
export type Init<T extends Message> = MessageInitShape<GenMessage<T>>;

type Scalar = "string" | "bytes" | "bool" | "int32" | "uint32" | "int64" | "uint64";

/** One member of a message. Enumerations are `int32`. */
export interface Field {
  readonly no: number;
  readonly name: string;
  readonly type: Scalar | AnySchema;
  readonly repeated?: true;
  /** The member that holds it, as `{ case, value }`. */
  readonly oneof?: string;
}

/** What is known of a kind of message. */
interface AnySchema {
  readonly typeName: string;
  readonly fields: readonly Field[];
  readonly byNumber: readonly (Field | undefined)[];
  /** Makes one with nothing in it. */
  empty(): Message;
}

declare const messageType: unique symbol;

/** What is known of messages of type `T`. */
export interface Schema<T extends Message> extends AnySchema {
  readonly [messageType]?: T;
}

/** What members of bytes are where nothing was said. */
export const NO_BYTES: Uint8Array<ArrayBuffer> = new Uint8Array();

/**
 * Declares a kind of message.
 *
 * @param empty Makes one with nothing in it, from a literal: members that are added one by one, under names from a table,
 * cost several times as much, in time and in memory.
 */
export function schema<T extends Message>(
  typeName: T["$typeName"],
  fields: readonly Field[],
  empty: () => T,
): Schema<T> {
  const byNumber: (Field | undefined)[] = [];
  for (const field of fields) byNumber[field.no] = field;
  return { typeName, fields, byNumber, empty };
}

function make(schema: AnySchema): Members {
  return schema.empty() as Members;
}

/** Makes a message. One that is complete already is returned as it is. */
export function create<T extends Message>(schema: Schema<T>, init?: Init<T>): T {
  return complete(schema, (init ?? {}) as Partial<Members>) as Message as T;
}

function complete(schema: AnySchema, init: Partial<Members>): Members {
  if (init.$typeName === schema.typeName) return init as Members;
  const message = make(schema);
  for (const field of schema.fields) {
    const value = memberOf(field, init);
    if (value === undefined || value === null) continue;
    if (typeof field.type === "string") message[field.name] = value;
    else if (field.repeated) {
      const { type } = field;
      message[field.name] = (value as Partial<Members>[]).map((item) => complete(type, item));
    } else put(message, field, complete(field.type, value as Partial<Members>));
  }
  return message;
}

function memberOf({ name, oneof }: Field, message: Partial<Members>): unknown {
  if (oneof === undefined) return message[name];
  const chosen = message[oneof] as { case?: string; value?: unknown } | undefined;
  return chosen?.case === name ? chosen.value : undefined;
}

function put(message: Members, { name, oneof }: Field, value: unknown): void {
  if (oneof === undefined) message[name] = value;
  else message[oneof] = { case: name, value };
}

// Encoding

const writer = new Writer();

/**
 * Encodes a message, complete or not.
 *
 * @throws {RangeError} If a number does not fit its type.
 */
export function toBinary<T extends Message>(schema: Schema<T>, message: Init<T>): Uint8Array<ArrayBuffer> {
  writer.begin();
  writeMessage(schema, message as Partial<Members>);
  return writer.end();
}

function writeMessage({ fields }: AnySchema, message: Partial<Members>): void {
  for (const field of fields) {
    const value = memberOf(field, message);
    if (value === undefined || value === null) continue;
    if (field.repeated) writeList(field, value as unknown[]);
    else if (typeof field.type !== "string") writeChild(field.no, field.type, value as Members);
    else if (!isDefault(value)) {
      writer.tag(field.no, wireTypeOf(field.type));
      writeScalar(field.type, value);
    }
  }
  for (const { no, wireType, data } of message.$unknown ?? []) {
    writer.tag(no, wireType);
    writer.raw(data);
  }
}

function isDefault(value: unknown): boolean {
  return value === 0 || value === "" || value === false || value === 0n ||
    value instanceof Uint8Array && value.length === 0;
}

/** Numbers are packed. */
function writeList({ no, type }: Field, items: readonly unknown[]): void {
  if (typeof type !== "string") { for (const item of items) writeChild(no, type, item as Members); }
  else if (wireTypeOf(type) === WireType.bytes) {
    for (const item of items) {
      writer.tag(no, WireType.bytes);
      writeScalar(type, item);
    }
  } else if (items.length > 0) {
    writer.tag(no, WireType.bytes);
    const start = writer.beginLength();
    for (const item of items) writeScalar(type, item);
    writer.endLength(start);
  }
}

function writeChild(no: number, schema: AnySchema, child: Partial<Members>): void {
  writer.tag(no, WireType.bytes);
  const start = writer.beginLength();
  writeMessage(schema, child);
  writer.endLength(start);
}

function wireTypeOf(type: Scalar): number {
  return type === "string" || type === "bytes" ? WireType.bytes : WireType.varint;
}

function writeScalar(type: Scalar, value: unknown): void {
  switch (type) {
    case "string":
      return writer.string(value as string);
    case "bytes":
      return writer.bytes(value as Uint8Array);
    case "bool":
      return writer.uint32(value ? 1 : 0);
    case "int32":
      return writer.int32(value as number);
    case "uint32":
      return writer.uint32(value as number);
    case "int64":
    case "uint64":
      return writer.int64(value as bigint);
  }
}

// Decoding

/**
 * Decodes a message. Keeps nothing of `bytes`.
 *
 * @throws {RangeError} If they are no such message, or end early.
 */
export function fromBinary<T extends Message>(schema: Schema<T>, bytes: Uint8Array): T {
  return readMessage(schema, make(schema), new Reader(bytes), bytes.length) as Message as T;
}

function readMessage(schema: AnySchema, message: Members, reader: Reader, end: number): Members {
  while (reader.position < end) {
    const tag = reader.tag(), field = schema.byNumber[tag >>> 3], wireType = tag & 7;
    if (field === undefined || !readField(field, wireType, message, reader)) {
      const data = reader.skip(wireType, tag >>> 3);
      (message.$unknown ??= []).push({ no: tag >>> 3, wireType, data });
    }
  }
  if (reader.position !== end) throw new RangeError("a field goes on behind the end of its message");
  return message;
}

/** Returns false where the member is not encoded as it should be: then it counts as unknown. */
function readField(field: Field, wireType: number, message: Members, reader: Reader): boolean {
  const { type, name } = field;
  if (typeof type !== "string") {
    if (wireType !== WireType.bytes) return false;
    // One that comes in parts is put together.
    const begun = field.repeated ? undefined : memberOf(field, message);
    const end = reader.end();
    const child = readMessage(type, (begun ?? make(type)) as Members, reader, end);
    if (field.repeated) (message[name] as unknown[]).push(child);
    else put(message, field, child);
  } else if (wireType === wireTypeOf(type)) {
    const value = readScalar(type, reader);
    if (field.repeated) (message[name] as unknown[]).push(value);
    else message[name] = value;
  } else if (field.repeated && wireType === WireType.bytes) {
    const items = message[name] as unknown[];
    for (const end = reader.end(); reader.position < end;) items.push(readScalar(type, reader));
  } else return false;
  return true;
}

function readScalar(type: Scalar, reader: Reader): unknown {
  switch (type) {
    case "string":
      return reader.string();
    case "bytes":
      return reader.bytes();
    case "bool":
      return reader.bool();
    case "int32":
      return reader.uint32() | 0;
    case "uint32":
      return reader.uint32();
    case "int64":
      return BigInt.asIntN(64, reader.uint64());
    case "uint64":
      return reader.uint64();
  }
}
