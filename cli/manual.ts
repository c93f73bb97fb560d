/** A program's manual page, made from its declaration: troff with the man macros. */

import type { Flag } from "./flags.ts";
import { form, sentence } from "./help.ts";
import { type ProgramDescription, standardFlags } from "./program.ts";
import { version } from "./version.ts";

/** The manual page, for section 1. */
export function renderManual(program: ProgramDescription): string {
  const flags = Object.entries<Flag<unknown>>({ ...program.flags, ...standardFlags });
  const lines = [
    `.TH ${program.name.toUpperCase()} 1 "" "subspace ${version}" "User Commands"`,
    ".SH NAME",
    `${escape(program.name)} \\- ${escape(program.summary)}`,
    ".SH SYNOPSIS",
    `.B ${escape(program.name)}`,
    escape([program.operands, "[FLAGS]"].filter(Boolean).join(" ")),
  ];
  if (program.verbs !== undefined) {
    lines.push(".SH VERBS", ...program.verbs.flatMap(({ command, what }) => entry(command, what)));
  }
  for (const [group, members] of Map.groupBy(flags, ([, flag]) => flag.group ?? "Options")) {
    lines.push(`.SH ${escape(group.toUpperCase())}`);
    lines.push(...members.flatMap((member) => entry(form(member), sentence(member[1]))));
  }
  lines.push(".SH EXAMPLES", ...program.examples.flatMap(({ command, what }) => entry(command, what)));
  lines.push(".SH EXIT STATUS");
  lines.push(...Object.entries(program.exitCodes).flatMap(([code, what]) => entry(code, what)));
  lines.push(
    ".SH NOTES",
    escape(
      "Flags are taken as --name=value, --name value, -name, --switch, --noswitch; a hyphen in a name counts as an underscore.",
    ),
  );
  return lines.join("\n") + "\n";
}

/** A term in bold, and its explanation. */
function entry(term: string, explanation: string): string[] {
  return [".TP", `.B ${escape(term)}`, escape(explanation)];
}

/** Text that troff shows as it is: backslashes, hyphens, and no command at the beginning. */
function escape(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/^([.'])/, "\\&$1");
}
