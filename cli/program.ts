/** What all programs have in common: their declaration, `--help`, `--version`, errors and exit codes. */

import { ExitCode } from "./exit_codes.ts";
import { choice, flag, FlagError, type Flags, type FlagValues, onOff, parseFlags } from "./flags.ts";
import { terminalColumns, writeError, writeOut } from "./output.ts";
import { version } from "./version.ts";

/** A program as its users see it: what help is made from. */
export interface ProgramDescription {
  readonly name: string;
  /** One sentence. */
  readonly summary: string;
  /** Arguments that are no flags, for help: `[VERB]`. Default: there are none, and to give one is an error. */
  readonly operands?: string;
  /** What the program can be told to do, for help. */
  readonly verbs?: readonly { readonly command: string; readonly what: string }[];
  readonly flags: Flags;
  readonly examples: readonly { readonly command: string; readonly what: string }[];
  /** By exit code, what it means. */
  readonly exitCodes: Readonly<Record<number, string>>;
}

/** A program that can be run. */
export interface Program<F extends Flags> extends ProgramDescription {
  readonly flags: F;
  /** The exit code for a wrong command line. */
  readonly usageCode: number;
  /** Does the work and returns the exit code. What it throws is shown to the user; the exit code is 1 then. */
  run(values: FlagValues<F>, operands: readonly string[]): Promise<number>;
}

/** Flags of every program. */
export const standardFlags = {
  help: flag({ type: onOff, default: false, description: "Show this help and exit" }),
  version: flag({ type: onOff, default: false, description: "Show the version and exit" }),
  completion: flag<"" | "bash" | "zsh" | "fish">({
    type: choice("SHELL", ["bash", "zsh", "fish"]),
    default: "",
    description: "Print what a shell needs to complete the command line, and exit",
  }),
  manual: flag({ type: onOff, default: false, description: "Print the manual page, for man, and exit" }),
};

/** Runs a program to its end and ends the process. */
export async function main<F extends Flags>(program: Program<F>, argv: readonly string[]): Promise<never> {
  Deno.exit(await exitCodeOf(program, argv));
}

/** Runs a program to its end. Says what went wrong on standard error, and returns the exit code. */
export async function exitCodeOf<F extends Flags>(
  program: Program<F>,
  argv: readonly string[],
): Promise<number> {
  try {
    const { values, positionals } = parseFlags({ ...program.flags, ...standardFlags }, argv);
    if (values.help) {
      const { renderHelp } = await import("./help.ts");
      writeOut(renderHelp(program, terminalColumns(Deno.stdout) ?? undefined));
      return ExitCode.ok;
    }
    if (values.version) {
      writeOut(`${program.name} ${version}\n`);
      return ExitCode.ok;
    }
    const { completion } = values as FlagValues<typeof standardFlags>;
    if (completion !== "") {
      const { renderCompletion } = await import("./completion.ts");
      writeOut(renderCompletion(program, completion));
      return ExitCode.ok;
    }
    if (values.manual) {
      const { renderManual } = await import("./manual.ts");
      writeOut(renderManual(program));
      return ExitCode.ok;
    }
    if (program.operands === undefined && positionals.length > 0) throw unexpected(positionals[0]);
    return await program.run(values, positionals);
  } catch (error) {
    if (error instanceof FlagError) {
      writeError(`${error.message}\nTry '${program.name} --help'.\n`);
      return program.usageCode;
    }
    writeError(`${error instanceof Error ? error.message : error}\n`);
    return ExitCode.failure;
  }
}

/** A switch followed by its value looks like this: Abseil would drop the value without a word. */
function unexpected(operand: string): FlagError {
  const hint = onOff.parse(operand) === undefined ? "" : `; to set a switch, write --flag=${operand}`;
  return new FlagError(`ERROR: Unexpected argument '${operand}'${hint}`);
}
