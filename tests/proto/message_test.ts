/** What `proto/message.ts` makes of messages, beside protobuf-es. */

import assert from "node:assert/strict";
import {
  create as createReference,
  type DescField,
  type DescMessage,
  fromBinary as decodeReference,
  type Message,
  ScalarType,
  toBinary as encodeReference,
} from "@bufbuild/protobuf";
import { create, fromBinary, type Schema, toBinary } from "../../proto/message.ts";
import * as tables from "../../proto/subspace.ts";
import { file_subspace } from "../../proto/subspace_pb.ts";
import { Random } from "../chaos/random.ts";

const schemas = tables as unknown as Record<string, Schema<Message>>;
const kinds = file_subspace.messages.map((desc) => ({ desc, schema: schemas[`${desc.name}Schema`] }));
const ROUNDS = 60;

function randomText(random: Random): string {
  const length = random.pick([0, 1, 5, 63, 64, 65, 127, 128, 200, 2000]);
  const letters = random.pick(["abc/_", "aé", "\u{1f600}x", "\0\ufeff"]);
  return Array.from({ length }, () => random.pick([...letters])).join("");
}

function randomScalar(random: Random, field: DescField): unknown {
  if (field.enum !== undefined) return random.pick([0, 1, 4, 77, -1]);
  switch (field.scalar) {
    case ScalarType.STRING:
      return randomText(random);
    case ScalarType.BYTES:
      return Uint8Array.from({ length: random.pick([0, 1, 127, 128, 5000]) }, () => random.below(256));
    case ScalarType.BOOL:
      return random.next() < 0.5;
    case ScalarType.INT32:
      return random.pick([0, 1, -1, 127, 128, 0x7fff_ffff, -0x8000_0000, random.below(1e6)]);
    case ScalarType.UINT32:
      return random.pick([0, 1, 127, 128, 0x8000_0000, 0xffff_ffff]);
    case ScalarType.INT64:
      return random.pick([0n, 1n, -1n, 2n ** 32n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 28n]);
    case ScalarType.UINT64:
      return random.pick([0n, 1n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 64n - 1n, 2n ** 35n]);
    default:
      throw new Error(`no value for ${field}`);
  }
}

function randomValue(random: Random, field: DescField): unknown {
  const one = () =>
    field.message === undefined ? randomScalar(random, field) : randomMessage(random, field.message);
  return field.fieldKind === "list"
    ? Array.from({ length: random.pick([0, 1, 2, field.message === undefined ? 200 : 3]) }, one)
    : one();
}

function randomMessage(random: Random, desc: DescMessage): Record<string, unknown> {
  const message: Record<string, unknown> = {};
  for (const member of desc.members) {
    if (random.next() < 0.3) continue;
    if (member.kind === "oneof") {
      const field = random.pick(member.fields);
      message[member.localName] = { case: field.localName, value: randomValue(random, field) };
    } else message[member.localName] = randomValue(random, member);
  }
  if (random.next() < 0.3) {
    message.$unknown = random.pick([
      [{ no: 500, wireType: 0, data: Uint8Array.of(0x96, 1) }],
      [{ no: 99, wireType: 2, data: Uint8Array.of(2, 7, 8) }, {
        no: 98,
        wireType: 1,
        data: new Uint8Array(8),
      }],
      [{ no: 97, wireType: 3, data: Uint8Array.of(8, 1, 0x8c, 6) }],
    ]);
  }
  return message;
}

/** Both makers' message of the same members. */
function both(random: Random, { desc, schema }: typeof kinds[number]): { reference: Message; ours: Message } {
  const init = randomMessage(random, desc), { $unknown, ...members } = init;
  const reference = createReference(desc, members), ours = create(schema, members as never);
  if ($unknown !== undefined) {
    Object.assign(reference, { $unknown });
    Object.assign(ours, { $unknown });
  }
  return { reference, ours };
}

for (const kind of kinds) {
  const { desc, schema } = kind;

  Deno.test(`${desc.name} is made, encoded and decoded as protobuf-es does, whatever is in it`, () => {
    const random = new Random(desc.name.length);
    for (let round = 0; round < ROUNDS; round++) {
      const { reference, ours } = both(random, kind);
      assert.deepEqual(ours, reference);
      const bytes = encodeReference(desc, reference);
      assert.deepEqual(toBinary(schema, ours), bytes);
      assert.deepEqual(fromBinary(schema, bytes), decodeReference(desc, bytes));
    }
  });

  Deno.test(`${desc.name} in two parts is put together as protobuf-es does`, () => {
    const random = new Random(desc.name.length + 100);
    for (let round = 0; round < ROUNDS; round++) {
      const parts = [both(random, kind), both(random, kind)].map(({ ours }) => toBinary(schema, ours));
      const bytes = Uint8Array.from(parts.flatMap((part) => [...part]));
      assert.deepEqual(fromBinary(schema, bytes), decodeReference(desc, bytes));
    }
  });

  Deno.test(`${desc.name} is decoded or refused with an error, whatever the bytes`, () => {
    const random = new Random(desc.name.length + 200);
    for (let round = 0; round < ROUNDS * 4; round++) {
      const bytes = toBinary(schema, both(random, kind).ours).slice(0, 300);
      for (let n = random.below(4); n > 0 && bytes.length > 0; n--) {
        bytes[random.below(bytes.length)] = random.below(256);
      }
      const cut = bytes.subarray(0, random.below(bytes.length + 1));
      let decoded;
      try {
        decoded = fromBinary(schema, cut);
      } catch (error) {
        assert(error instanceof RangeError || error instanceof TypeError, String(error));
        continue;
      }
      assert.deepEqual(fromBinary(schema, toBinary(schema, decoded)), decoded);
    }
  });
}

Deno.test("a member of the wrong wire type is kept as unknown, as the reference keeps it", () => {
  const bytes = Uint8Array.of(1 << 3 | 0, 5); // channel_name as a number
  const message = fromBinary(tables.GetTriggersRequestSchema, bytes);
  assert.equal(message.channelName, "");
  assert.deepEqual(message.$unknown, [{ no: 1, wireType: 0, data: Uint8Array.of(5) }]);
  assert.deepEqual(toBinary(tables.GetTriggersRequestSchema, message), bytes);
});

Deno.test("numbers that do not fit their type are not encoded", () => {
  const encode = (publisherId: number) => toBinary(tables.RemovePublisherRequestSchema, { publisherId });
  for (const wrong of [2 ** 31, -(2 ** 31) - 1, 1.5, NaN]) assert.throws(() => encode(wrong), RangeError);
});

Deno.test("a decoded message does not change with the bytes that it came from", () => {
  const bytes = toBinary(tables.CreatePublisherRequestSchema, { type: Uint8Array.of(1, 2, 3) });
  const message = fromBinary(tables.CreatePublisherRequestSchema, bytes);
  bytes.fill(0);
  assert.deepEqual(message.type, Uint8Array.of(1, 2, 3));
});

Deno.test("text that is no UTF-8 is refused", () => {
  for (const length of [2, 100]) {
    const bytes = Uint8Array.of(1 << 3 | 2, length, ...new Uint8Array(length).fill(0xff));
    assert.throws(() => fromBinary(tables.GetTriggersRequestSchema, bytes), TypeError);
  }
});
