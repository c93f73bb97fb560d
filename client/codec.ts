/** What messages mean: turning values into bytes, and back. */

import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";

/** Turns values into messages and back. Give the same one to a channel's publishers and subscribers. */
export interface Codec<Value> {
  encode(value: Value): Uint8Array;
  /** Must copy what it keeps: the bytes are shared memory, and used again once the message is released. */
  decode(bytes: Uint8Array<ArrayBuffer>): Value;
}

/** Messages are bytes, copied. */
export function bytesCodec(): Codec<Uint8Array> {
  return { encode: (value) => value, decode: (bytes) => bytes.slice() };
}

/** Messages are JSON in UTF-8. What others send is not checked. */
export function jsonCodec<Value>(): Codec<Value> {
  const encoder = new TextEncoder(), decoder = new TextDecoder();
  return {
    encode: (value) => encoder.encode(JSON.stringify(value)),
    decode: (bytes) => JSON.parse(decoder.decode(bytes)),
  };
}

/** Messages are protobufs of a schema that `protoc-gen-es` has made. */
export function protobufCodec<Schema extends DescMessage>(schema: Schema): Codec<MessageShape<Schema>> {
  return {
    encode: (value) => toBinary(schema, value),
    decode: (bytes) => fromBinary(schema, bytes.slice()),
  };
}
