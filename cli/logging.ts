/**
 * Log lines on standard error, in the reference's format (specification, section 8.4): plain lines for files and
 * pipes, coloured columns on a terminal.
 */

import { configureSync, type LogLevel, type LogRecord } from "@logtape/logtape";
import type { LogFormatName, LogLevelName } from "./log_level.ts";
import { terminalColumns, writeError, writeErrorSoon } from "./output.ts";

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

/**
 * Sends what all parts of this program log to standard error. From then on SIGUSR1 makes it talk more: debug, then
 * verbose, then as at first.
 */
export function startLogging(subsystem: string, level: LogLevelName, format: LogFormatName): void {
  configureLogging(subsystem, level, format);
  const levels = levelsInTurn(level);
  let turn = 0;
  Deno.addSignalListener("SIGUSR1", () => {
    const next = levels[++turn % levels.length];
    configureLogging(subsystem, next, format);
    writeError(formatOf(format, subsystem)(levelChange(next), timeNow()));
  });
}

/** The levels that SIGUSR1 goes through: the chosen one, and those that say more. */
export function levelsInTurn(chosen: LogLevelName): LogLevelName[] {
  return [...new Set<LogLevelName>([chosen, "debug", "verbose"])];
}

/** Said whatever the level is: whoever sent the signal wants to see that it came. */
function levelChange(level: LogLevelName): LogRecord {
  const message = `Log level is ${level} now`;
  const properties = { level };
  return {
    category: [],
    level: "info",
    message: [message],
    rawMessage: message,
    timestamp: Date.now(),
    properties,
  };
}

function configureLogging(subsystem: string, level: LogLevelName, formatName: LogFormatName): void {
  const format = formatOf(formatName, subsystem);
  configureSync({
    reset: true,
    sinks: { standardError: (record) => writeErrorSoon(format(record, timeNow())) },
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

function formatOf(name: LogFormatName, subsystem: string): LogFormat {
  if (name === "json") return jsonFormat(subsystem);
  const columns = terminalColumns(Deno.stderr);
  if (columns === null) return plainFormat(subsystem);
  return columnFormat(subsystem, columns, { coloured: !Deno.noColor });
}

/** Local time to the nanosecond: `2026-11-21 09:07:06.381391459`. */
function timeNow(): string {
  return Temporal.Now.plainDateTimeISO().toString({ fractionalSecondDigits: 9 }).replace("T", " ");
}

/** Turns a record, and the time as text, into a line or several. */
export type LogFormat = (record: LogRecord, time: string) => string;

/** Lines with time, subsystem, level, an empty source, and a line of the message, which mostly has one. */
export function plainFormat(subsystem: string): LogFormat {
  return (record, time) => {
    const head = `${time} ${subsystem}:  ${letters[record.level]}: : `;
    return messageOf(record).split("\n").map((line) => `${head}${line}\n`).join("");
  };
}

/** One JSON object a record: `time`, `subsystem`, `level`, `message`, and under `values` what the message is about. */
export function jsonFormat(subsystem: string): LogFormat {
  return (record, time) => {
    const level = (Object.keys(threshold) as LogLevelName[]).find((name) => threshold[name] === record.level);
    const line = { time, subsystem, level, message: messageOf(record), values: record.properties };
    return JSON.stringify(line, (_, value) => typeof value === "bigint" ? String(value) : value) + "\n";
  };
}

/** The message with its values put in; of a list each in a line. */
function messageOf({ message }: LogRecord): string {
  return message.map(textOf).join("").trimEnd();
}

function textOf(part: unknown): string {
  if (part instanceof Error) return part.message;
  return Array.isArray(part) ? part.join("\n") : String(part);
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
