import assert from "node:assert/strict";
import { createMemory } from "../../ffi/memory_object.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { arena } from "../../shm/arena.ts";
import { Ranges } from "../../shm/ranges.ts";

Deno.test("the arena shows a mapped file's bytes, and the file what is written to them", () => {
  using fd = createMemory("test", 8192);
  using plain = Mapping.map(fd, 8192);
  using mapped = arena().map(fd, 8192);
  plain.bytes[5000] = 7;
  assert.equal(arena().u8[mapped.address + 5000], 7);
  arena().u8[mapped.address + 1] = 9;
  assert.equal(plain.bytes[1], 9);
});

Deno.test("an unmapped range is private zeroes, and is given out again", () => {
  using fd = createMemory("test", 10_000);
  using plain = Mapping.map(fd, 10_000);
  plain.bytes.fill(1);
  const first = arena().map(fd, 10_000);
  const { address } = first;
  first.unmap();
  first.unmap();
  assert(arena().u8.subarray(address, address + 10_000).every((byte) => byte === 0));
  arena().u8[address] = 5;
  assert.equal(plain.bytes[0], 1);
  using second = arena().map(fd, 10_000);
  assert.equal(second.address, address);
  assert.equal(arena().u8[address], 1);
});

Deno.test("a file shorter than asked for is refused, and its range given back", () => {
  using fd = createMemory("test", 4096);
  assert.throws(() => arena().map(fd, 8192), /Cannot map 8192 bytes of shared memory: the file has 4096/);
  using mapped = arena().map(fd, 4096);
  mapped.unmap();
  using again = arena().map(fd, 4096);
  assert.equal(again.address, mapped.address);
});

Deno.test("more than the arena has is refused in words", () => {
  using fd = createMemory("test", 8 * 2 ** 30);
  assert.throws(() => arena().map(fd, 8 * 2 ** 30), /Cannot map \d+ bytes: .* fill their 4 GiB/);
});

Deno.test("private memory is zeroed and given out again, small and large", () => {
  for (const bytes of [100, 1_000_000]) {
    const address = arena().allocate(bytes);
    arena().u8.fill(3, address, address + bytes);
    arena().free(address, bytes);
    const again = arena().allocate(bytes);
    assert.equal(again, address);
    assert(arena().u8.subarray(again, again + bytes).every((byte) => byte === 0));
    arena().free(again, bytes);
  }
});

Deno.test("free ranges are joined with both neighbours", () => {
  const ranges = new Ranges(0, 1000, 10);
  const [a, b, c] = [ranges.take(95)!, ranges.take(100)!, ranges.take(200)!];
  assert.deepEqual([a, b, c], [0, 100, 200]);
  assert.equal(ranges.take(700), null);
  ranges.give(a, 95);
  ranges.give(c, 200);
  assert.equal(ranges.take(1000), null);
  ranges.give(b, 100);
  assert.equal(ranges.take(1000), 0);
});
