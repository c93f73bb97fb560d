/**
 * Log lines on standard error, in the reference's format (specification, section 8.4): plain lines for files and
 * pipes, coloured columns on a terminal.
 */

import { configureSync, type LogLevel, type LogRecord } from "@logtape/logtape";
import type { LogLevelName } from "./log_level.ts";
import { terminalColumns, writeError } from "./output.ts";

/** LogTape's names of the reference's levels. */
const threshold: Record<LogLevelName, LogLevel> = {
  verbose: "trace",
  debug: "debug",
  info: "info",
  warning: "warning",
  error: "error",
  fatal: "fatal",
};

const letters: Record<LogLevel, string> = {
  trace: "V",
  debug: "D",
  info: "I",
  warning: "W",
  error: "E",
  fatal: "F",
};

/** Sends what all parts of this program log to standard error. */
export function configureLogging(subsystem: string, level: LogLevelName): void {
  const columns = terminalColumns(Deno.stderr);
  const format = columns === null
    ? plainFormat(subsystem)
    : columnFormat(subsystem, columns, { coloured: !Deno.noColor });
  configureSync({
    reset: true,
    sinks: { standardError: (record) => writeError(format(record, timeNow())) },
    loggers: [
      { category: [], sinks: ["standardError"], lowestLevel: threshold[level] },
      {
        category: ["logtape", "meta"],
        parentSinks: "override",
        sinks: ["standardError"],
        lowestLevel: "warning",
      },
    ],
  });
}

/** Local time to the nanosecond: `2026-11-21 09:07:06.381391459`. */
function timeNow(): string {
  return Temporal.Now.plainDateTimeISO().toString({ fractionalSecondDigits: 9 }).replace("T", " ");
}

/** Turns a record, and the time as text, into a line or several. */
export type LogFormat = (record: LogRecord, time: string) => string;

/** One line a record: time, subsystem, level, an empty source, and the message. */
export function plainFormat(subsystem: string): LogFormat {
  return (record, time) => `${time} ${subsystem}:  ${letters[record.level]}: : ${messageOf(record)}\n`;
}

/** The message with its values put in. */
function messageOf({ message }: LogRecord): string {
  return message.map((part) => part instanceof Error ? part.message : String(part)).join("").trimEnd();
}

const RESET = "\x1b[0m";
const TIME_COLOUR = "\x1b[36m";
const SUBSYSTEM_COLOUR = "\x1b[32m";
/** Background of the level's column, and the text's own colour. */
const levelColours: Record<LogLevel, readonly [string, string]> = {
  trace: ["\x1b[42;37;1m", "\x1b[32m"],
  debug: ["\x1b[42;37;1m", "\x1b[32m"],
  info: ["\x1b[1m", ""],
  warning: ["\x1b[45;37;1m", "\x1b[35;1m"],
  error: ["\x1b[41;37;1m", "\x1b[31;1m"],
  fatal: ["\x1b[41;37;1m", "\x1b[31;1m"],
};
const TEXT_COLUMNS_MIN = 20;

/** Columns for time, subsystem, level and message; a long message goes on below itself. */
export function columnFormat(
  subsystem: string,
  width: number,
  { coloured }: { coloured: boolean },
): LogFormat {
  const paint = (colour: string, text: string) => coloured && colour !== "" ? colour + text + RESET : text;
  return (record, time) => {
    const [background, colour] = levelColours[record.level];
    const indent = time.length + subsystem.length + 6;
    const lines = wrap(messageOf(record), Math.max(TEXT_COLUMNS_MIN, width - indent));
    const head = [
      paint(TIME_COLOUR, time),
      paint(SUBSYSTEM_COLOUR, subsystem),
      paint(background, ` ${letters[record.level]} `),
    ].join(" ");
    return lines.map((line, i) => `${i === 0 ? head + " " : " ".repeat(indent)}${paint(colour, line)}\n`)
      .join("");
  };
}

/** Cuts text into lines, between words where it can. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (let rest of text.split("\n")) {
    while (rest.length > width) {
      const space = rest.lastIndexOf(" ", width);
      const cut = space > 0 ? space : width;
      lines.push(rest.slice(0, cut));
      rest = rest.slice(cut).trimStart();
    }
    lines.push(rest);
  }
  return lines;
}
