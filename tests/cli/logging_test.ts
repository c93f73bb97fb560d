import assert from "node:assert/strict";
import type { LogLevel, LogRecord } from "@logtape/logtape";
import { columnFormat, jsonFormat, levelsInTurn, plainFormat } from "../../cli/logging.ts";

const time = "2026-11-21 09:07:06.381391459";

function record(level: LogLevel, ...message: unknown[]): LogRecord {
  return { category: ["subspace"], level, message, rawMessage: "", timestamp: 0, properties: {} };
}

Deno.test("plain lines are those of the reference, byte for byte", () => {
  const server = plainFormat("Subspace server"), shadow = plainFormat("shadow");
  assert.equal(
    server(record("info", "Connected to primary shadow process"), time),
    "2026-11-21 09:07:06.381391459 Subspace server:  I: : Connected to primary shadow process\n",
  );
  assert.equal(
    shadow(record("debug", "Shadow: sent state dump (session_id=", 0n, ", ", 12, " channels)"), time),
    "2026-11-21 09:07:06.381391459 shadow:  D: : Shadow: sent state dump (session_id=0, 12 channels)\n",
  );
});

Deno.test("each level has its letter", () => {
  const levels: LogLevel[] = ["trace", "debug", "info", "warning", "error", "fatal"];
  const letters = levels.map((level) => plainFormat("x")(record(level, ""), time).match(/: {2}(.): :/)?.[1]);
  assert.deepEqual(letters, ["V", "D", "I", "W", "E", "F"]);
});

Deno.test("errors in a message are shown by what they say, and a last line break is dropped", () => {
  const line = plainFormat("x")(record("error", "Failed: ", new Error("no room"), "\n"), time);
  assert.equal(line, `${time} x:  E: : Failed: no room\n`);
});

Deno.test("a list is a line each, with all that lines have in front", () => {
  const lines = plainFormat("x")(record("info", ["one", "two"]), time);
  assert.equal(lines, `${time} x:  I: : one\n${time} x:  I: : two\n`);
});

Deno.test("columns keep a long message in its own column, cut between words", () => {
  const format = columnFormat("shadow", 70, { coloured: false });
  assert.equal(
    format(record("warning", "a message that is longer than what is left of the line\nsecond line"), time),
    [
      `${time} shadow  W  a message that is longer than`,
      "                                         what is left of the line",
      "                                         second line",
      "",
    ].join("\n"),
  );
  const path = "/".repeat(40);
  assert.equal(
    format(record("info", path), time).replaceAll(/[^/]/g, ""),
    path,
  );
});

Deno.test("colours tell levels apart and take no room", () => {
  const plain = columnFormat("shadow", 100, { coloured: false });
  const coloured = columnFormat("shadow", 100, { coloured: true });
  const seen = new Set<string>();
  for (const level of ["debug", "info", "warning", "error"] as const) {
    const line = coloured(record(level, "text"), time);
    // deno-lint-ignore no-control-regex
    assert.equal(line.replace(/\x1b\[[\d;]*m/g, ""), plain(record(level, "text"), time));
    seen.add(line.replace(/ [DIWE] /, ""));
  }
  assert.equal(seen.size, 4);
});

Deno.test("as JSON a record is one object with its values beside the message", () => {
  const line = jsonFormat("shadow")(
    { ...record("warning", "session ", 5n), properties: { session: 5n } },
    time,
  );
  assert.equal(line.at(-1), "\n");
  assert.deepEqual(JSON.parse(line), {
    time,
    subsystem: "shadow",
    level: "warning",
    message: "session 5",
    values: { session: "5" },
  });
});

Deno.test("a signal goes on to the levels that say more, and back to the chosen one", () => {
  assert.deepEqual(levelsInTurn("info"), ["info", "debug", "verbose"]);
  assert.deepEqual(levelsInTurn("debug"), ["debug", "verbose"]);
});
