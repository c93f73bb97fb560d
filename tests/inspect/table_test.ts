import assert from "node:assert/strict";
import {
  colourStyle,
  displayWidth,
  plainStyle,
  printable,
  renderTable,
  sentenceLines,
  shortened,
} from "../../inspect/table.ts";
import { formatAge, formatBytes, formatCount, formatNumberOf } from "../../inspect/units.ts";

const columns = [{ title: "NAME", minimum: 8 }, { title: "N", align: "right" as const }, {
  title: "TEXT",
  minimum: 4,
}];

Deno.test("columns are as wide as their widest cell, numbers at the right, nothing behind the last", () => {
  assert.deepEqual(renderTable(columns, [["a", "1", "x"], ["longer", "1000", ""]], Infinity, plainStyle), [
    "NAME       N  TEXT",
    "a          1  x",
    "longer  1000",
  ]);
});

Deno.test("columns without any text are left out", () => {
  assert.deepEqual(renderTable(columns, [["a", "", "x"]], Infinity, plainStyle), ["NAME  TEXT", "a     x"]);
});

Deno.test("the last column that may be is shortened first, from its middle", () => {
  const rows = [["/some/long/name", "1", "a longer text than fits"]];
  assert.deepEqual(renderTable(columns, rows, 40, plainStyle)[1], "/some/long/name  1  a longer tex…an fits");
  assert.deepEqual(renderTable(columns, rows, 20, plainStyle)[1], "/some/…name  1  a …s");
  assert.deepEqual(renderTable(columns, rows, 5, plainStyle)[1], "/some…me  1  a …s");
});

Deno.test("a cell that stands out is as wide as any", () => {
  const rows = [[{ text: "ab", emphasis: "alarm" as const }, "1", ""]];
  assert.deepEqual(renderTable(columns.slice(0, 2), rows, Infinity, colourStyle), [
    "\x1b[1mNAME\x1b[0m  \x1b[1mN\x1b[0m",
    "\x1b[31;1mab\x1b[0m    1",
  ]);
});

Deno.test("width is that of the terminal, not of the string", () => {
  for (
    const [text, width] of [["abc", 3], ["äöü", 3], ["日本", 4], ["e\u0301", 1], ["🤖", 2], ["한글", 4], [
      "…",
      1,
    ], ["Ω", 1]] as const
  ) assert.equal(displayWidth(text), width, text);
  const [, row] = renderTable(columns, [["日本語の名前です", "1", ""]], 14, plainStyle);
  assert(displayWidth(row) <= 14, row);
});

Deno.test("control and formatting characters are shown, not obeyed", () => {
  assert.equal(printable("a\tb\x07\u200fc\ud800"), "a\\u{9}b\\u{7}\\u{200f}c\\u{d800}");
  assert.equal(printable("/topic/ÄÖ 🤖"), "/topic/ÄÖ 🤖");
});

Deno.test("numbers are shown as people read them", () => {
  const bytes = [[0, "0 B"], [1023, "1023 B"], [1024, "1.0 KiB"], [10188, "9.9 KiB"], [10189, "10 KiB"], [
    1048575,
    "1.0 MiB",
  ], [3 * 2 ** 40, "3.0 TiB"]] as const;
  for (const [value, expected] of bytes) assert.equal(formatBytes(value), expected);
  const counts = [[0, "0"], [999_999_999, "999999999"], [1e9, "1000000 k"], [2 ** 64, "18446744 T"]] as const;
  for (const [value, expected] of counts) assert.equal(formatCount(value), expected);
  const ages = [
    [0, "0 ms"],
    [999, "999 ms"],
    [1000, "1 s"],
    [61_000, "1 min 1 s"],
    [3_600_000, "1 h"],
    [3_660_000, "1 h 1 min"],
    [90_000_000, "1 d 1 h"],
    [86_460_000, "1 d"],
  ] as const;
  for (const [value, expected] of ages) assert.equal(formatAge(value), expected);
  assert.deepEqual([formatNumberOf(1, "slot"), formatNumberOf(0, "slot")], ["1 slot", "0 slots"]);
});

Deno.test("a sentence is broken between words, whatever colours it has, and all of it is there", () => {
  const sentence = `DEAD  process 7 is ${colourStyle("gone for good", "alarm")}: it was /a/${
    "long/".repeat(6)
  }`;
  assert.deepEqual(sentenceLines(sentence, 20, 6), [
    "DEAD  process 7 is",
    "      \x1b[31;1mgone for good\x1b[0m:",
    "      it was",
    `      /a/${"long/".repeat(6)}`,
  ]);
  assert.deepEqual(sentenceLines(sentence, Infinity, 6), [sentence]);
  assert.deepEqual(sentenceLines("", 20), [""]);
});

Deno.test("a name is shortened in its middle, to as many columns as there are", () => {
  assert.equal(shortened("/robot/odometry", 15), "/robot/odometry");
  assert.equal(shortened("/robot/odometry", 10), "/robot…try");
  assert.equal(displayWidth(shortened("/テスト/チャンネル", 10)), 10);
});
