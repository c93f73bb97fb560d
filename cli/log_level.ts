/** The levels and forms of log lines, and the flags that choose one. */

import { choice, flag, FlagError } from "./flags.ts";

/** The reference's names, the most talkative first. */
export const logLevels = ["verbose", "debug", "info", "warning", "error", "fatal"] as const;

/** How much is logged. */
export type LogLevelName = typeof logLevels[number];

/** `--log_level`; a wrong one is refused in the reference's words. */
export const logLevelFlag = flag<LogLevelName>({
  type: {
    placeholder: "LEVEL",
    expected: `one of ${logLevels.join(", ")}`,
    choices: logLevels,
    parse(value) {
      const level = logLevels.find((name) => name === value);
      if (level === undefined) {
        throw new FlagError(`Unknown log level ${value}; expected one of ${logLevels.join(", ")}`);
      }
      return level;
    },
  },
  default: "info",
  description: "Log this and what is more severe; SIGUSR1 goes on to debug, verbose, and back",
});

/** What a log line looks like. */
export type LogFormatName = "text" | "json";

/** `--log_format`. */
export const logFormatFlag = flag<LogFormatName>({
  type: choice("FORMAT", ["text", "json"]),
  default: "text",
  description: "Log lines in the reference's form, or as one JSON object each",
});
