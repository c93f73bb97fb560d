/** Help, rendered from a program's declaration. */

import { type Flag, onOff } from "./flags.ts";
import { type ProgramDescription, standardFlags } from "./program.ts";

const WIDTH = 100;
const INDENT = "  ";
const EXPLANATION_COLUMN = 6;
const VERB_COLUMN = 24;
const FLAG_COLUMNS_MAX = 34;

/** The text of `--help`. */
export function renderHelp(program: ProgramDescription, columns = WIDTH): string {
  const width = Math.max(60, Math.min(columns, WIDTH));
  const entries = Object.entries<Flag<unknown>>({ ...program.flags, ...standardFlags });
  const column = Math.min(FLAG_COLUMNS_MAX, Math.max(...entries.map((entry) => form(entry).length))) +
    2 * INDENT.length;
  const lines = [
    ...describe(`${program.name}:`, program.summary, program.name.length + 2, width),
    "",
    `Usage: ${[program.name, program.operands, "[FLAGS]"].filter(Boolean).join(" ")}`,
  ];
  if (program.verbs !== undefined) {
    lines.push("", "Verbs:");
    for (const { command, what } of program.verbs) {
      lines.push(...describe(INDENT + command, what, VERB_COLUMN, width));
    }
  }
  for (const [group, members] of Map.groupBy(entries, ([, flag]) => flag.group ?? "Flags")) {
    lines.push("", `${group}:`);
    for (const entry of members) {
      lines.push(...describe(INDENT + form(entry), sentence(entry[1]), column, width));
    }
  }
  lines.push("", "Examples:");
  for (const { command, what } of program.examples) {
    lines.push(INDENT + command, ...describe("", what, EXPLANATION_COLUMN, width));
  }
  lines.push("", "Exit codes:");
  for (const [code, what] of Object.entries(program.exitCodes)) {
    lines.push(...describe(INDENT + code, what, EXPLANATION_COLUMN, width));
  }
  return lines.join("\n") + "\n";
}

/** A flag as it is typed, with a name for its value. */
export function form([name, { type }]: [string, Flag<unknown>]): string {
  return type === onOff ? `--${name}` : `--${name}=${type.placeholder}`;
}

/** The description with what goes without saying in words: choices and default. */
export function sentence({ type, default: value, description }: Flag<unknown>): string {
  const choices = type.choices === undefined ? "" : `: ${type.choices.join(", ")}`;
  const empty = value === "" || value === false || (Array.isArray(value) && value.length === 0);
  const shown = type.show?.(value) ?? String(value);
  return description + choices + (empty ? "" : ` (default ${shown})`);
}

/** A term and behind it its explanation, wrapped within its column; below the term where that is too long. */
function describe(term: string, explanation: string, column: number, width: number): string[] {
  const lines: string[] = [];
  let line = term;
  if (line.length > column - 1 && term !== "") {
    lines.push(line);
    line = "";
  }
  line = line.padEnd(column);
  for (const word of explanation.split(" ")) {
    if (line.length + word.length > width && line.trim() !== "") {
      lines.push(line.trimEnd());
      line = " ".repeat(column);
    }
    line += word + " ";
  }
  return [...lines, line.trimEnd()];
}
