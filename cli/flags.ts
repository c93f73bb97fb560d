/**
 * Command-line flags: declared once, and taken in every form that users of Abseil flags type.
 *
 * `--name=value`, `--name value`, `-name`, `--flag`, `--noflag`, `--flag=false`; hyphens count as underscores; of a
 * repeated flag the last one counts, except where its type says how values add up; `--` ends the flags.
 */

import { typeFlag } from "type-flag";
import { nearest } from "./suggestion.ts";

/** What the value of a flag may be. */
export interface ValueType<T> {
  /** Stands for the value in help: `NAME`. Empty where none is needed, as for switches. */
  readonly placeholder: string;
  /** What is allowed, for errors: `a whole number from 0 to 65535`. */
  readonly expected: string;
  /** The allowed texts where there are only a few, for help and completions. */
  readonly choices?: readonly string[];
  /** The value that a text stands for; undefined where it stands for none. */
  parse(text: string): T | undefined;
  /** A text that stands for a value, for help. Default: `String(value)`. */
  show?(value: T): string;
  /** What two of the same flag mean together. Default: the last one counts. */
  merge?(earlier: T, later: T): T;
}

/** A flag. */
export interface Flag<T> {
  readonly type: ValueType<T>;
  readonly default: T;
  /** For help: one sentence without a full stop. */
  readonly description: string;
  /** Heading in help under which it stands; none for the ordinary ones. */
  readonly group?: string;
}

/** Declares a flag. */
export function flag<T>(declaration: Flag<T>): Flag<T> {
  return declaration;
}

/** The flags of a program, by name; underscores between words. */
export type Flags = Readonly<Record<string, Flag<unknown>>>;

/** The values of a program's flags. */
export type FlagValues<F extends Flags> = {
  readonly [Name in keyof F]: F[Name] extends Flag<infer T> ? T : never;
};

/** The command line is wrong. The message says how, in the words of Abseil, and what would be right. */
export class FlagError extends Error {
  override readonly name = "FlagError";
}

/** Any text. */
export function text(placeholder: string): ValueType<string> {
  return { placeholder, expected: "text", parse: (value) => value };
}

/** A whole number. */
export function integer(minimum: number, maximum: number, placeholder = "N"): ValueType<number> {
  return {
    placeholder,
    expected: `a whole number from ${minimum} to ${maximum}`,
    parse(value) {
      if (!/^[+-]?(\d+|0x[\da-f]+)$/i.test(value)) return undefined;
      const number = value.startsWith("-") ? -Number(value.slice(1)) : Number(value);
      return number >= minimum && number <= maximum ? number : undefined;
    },
  };
}

const truths = new Map(
  [["true", "t", "yes", "y", "1"], ["false", "f", "no", "n", "0"]].flatMap((words, i) =>
    words.map((word) => [word, i === 0])
  ),
);

/** On or off: takes no value of its own unless after `=`. */
export const onOff: ValueType<boolean> = {
  placeholder: "",
  expected: "true or false",
  parse: (value) => truths.get(value.toLowerCase()),
};

/** One of a few words. */
export function choice<const Word extends string>(
  placeholder: string,
  words: readonly Word[],
): ValueType<Word> {
  return {
    placeholder,
    expected: `one of ${words.join(", ")}`,
    choices: words,
    parse: (value) => words.find((word) => word === value),
  };
}

/** A number of bytes: `64KiB`, `1MiB`; a bare number means bytes. */
export const byteCount: ValueType<number> = {
  placeholder: "BYTES",
  expected: "a number of bytes above zero such as 65536, 64KiB or 1MiB",
  parse(value) {
    const match = /^(\d+)(|KiB|MiB)$/.exec(value);
    if (match === null) return undefined;
    const bytes = Number(match[1]) * { "": 1, KiB: 1024, MiB: 1024 * 1024 }[match[2] as "" | "KiB" | "MiB"];
    return bytes > 0 && bytes <= 0x7fff_ffff ? bytes : undefined;
  },
  show: (bytes) => bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20}MiB` : String(bytes),
};

/** Words with commas between them. */
export function list(placeholder: string): ValueType<readonly string[]> {
  return {
    placeholder,
    expected: "words with commas between them",
    parse: (value) => value === "" ? [] : value.split(","),
  };
}

/** A time, in milliseconds: `500ms`, `2s`, `1.5m`; a bare number means seconds. */
export const duration: ValueType<number> = {
  placeholder: "TIME",
  expected: "a time above zero such as 500ms, 2s or 1m",
  parse(value) {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m|)$/.exec(value);
    if (match === null) return undefined;
    const ms = Number(match[1]) * { ms: 1, s: 1000, m: 60_000, "": 1000 }[match[2] as "ms" | "s" | "m" | ""];
    return ms > 0 && ms <= 0x7fff_ffff ? ms : undefined;
  },
  show: (ms) => `${ms / 1000}s`,
};

/** What a command line says. */
export interface ParsedFlags<F extends Flags> {
  readonly values: FlagValues<F>;
  readonly positionals: readonly string[];
}

/**
 * Parses a command line.
 *
 * @throws {FlagError} If it is wrong.
 */
export function parseFlags<F extends Flags>(flags: F, argv: readonly string[]): ParsedFlags<F> {
  const schema = Object.fromEntries(
    Object.entries(flags).map(([name, flag]) => {
      const all: [(value: string) => unknown] = [(value) => valueOf(name, flag, value)];
      return [name, { type: all }];
    }),
  );
  const { flags: given, _: positionals } = typeFlag(schema, normalised(flags, argv));
  const values = Object.fromEntries(
    Object.entries(flags).map(([name, flag]) => [name, combined(flag, given[name])]),
  );
  return { values: values as FlagValues<F>, positionals: [...positionals] };
}

/** What all values of one flag mean. */
function combined({ type, default: usual }: Flag<unknown>, values: readonly unknown[]): unknown {
  if (values.length === 0) return usual;
  return values.reduce((earlier, later) => type.merge?.(earlier, later) ?? later);
}

function valueOf(name: string, { type }: Flag<unknown>, value: string): unknown {
  const parsed = type.parse(value);
  if (parsed !== undefined) return parsed;
  throw new FlagError(
    `ERROR: Illegal value '${value}' specified for flag '${name}'; expected ${type.expected}`,
  );
}

/** The same command line with every flag as `--name=value`, and all that is no flag behind `--`. */
function normalised(flags: Flags, argv: readonly string[]): string[] {
  const settings: string[] = [];
  const positionals: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const match = /^--?([^-=][^=]*)(?:=(.*))?$/s.exec(argv[i]);
    if (argv[i] === "--") {
      positionals.push(...argv.slice(i + 1));
      break;
    } else if (match === null) {
      positionals.push(argv[i]);
      continue;
    }
    const name = match[1].replaceAll("-", "_");
    let value: string | undefined = match[2];
    if (Object.hasOwn(flags, name)) {
      if (flags[name].type === onOff) value ??= "true";
      else value ??= argv[++i];
      if (value === undefined) throw new FlagError(`ERROR: Missing the value for the flag '${name}'`);
      settings.push(`--${name}=${value}`);
    } else {
      settings.push(`--${negated(flags, name, value)}=false`);
    }
  }
  return [...settings, "--", ...positionals];
}

/** The switch that `noNAME` switches off. */
function negated(flags: Flags, written: string, value: string | undefined): string {
  const name = written.replace(/^no_?/, "");
  if (name === written || !Object.hasOwn(flags, name)) {
    const negative = Object.keys(flags).filter((it) => flags[it].type === onOff).map((it) => `no${it}`);
    const candidate = nearest(written, [...Object.keys(flags), ...negative]);
    throw new FlagError(
      `ERROR: Unknown command line flag '${written}'${
        candidate === null ? "" : `; did you mean --${candidate}?`
      }`,
    );
  }
  if (flags[name].type !== onOff) {
    throw new FlagError(`ERROR: Negative form is not valid for the flag '${name}'`);
  }
  if (value !== undefined) {
    throw new FlagError(`ERROR: Negative form with assignment is not valid for the flag '${name}'`);
  }
  return name;
}
