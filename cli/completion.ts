/** What shells need to complete a program's command line, made from its declaration. */

import { type Flag, onOff } from "./flags.ts";
import { type ProgramDescription, standardFlags } from "./program.ts";

/** The shells that are known. */
export type Shell = "bash" | "zsh" | "fish";

/** A script for a shell to load. */
export function renderCompletion(program: ProgramDescription, shell: Shell): string {
  return { bash, zsh, fish }[shell](program, Object.entries({ ...program.flags, ...standardFlags }));
}

type Entry = [name: string, flag: Flag<unknown>];

function verbsOf({ verbs = [] }: ProgramDescription): { name: string; what: string }[] {
  return verbs.map(({ command, what }) => ({ name: command.split(" ")[0], what }));
}

/** The words that a flag's value may be; none where anything goes. */
function choicesOf({ type }: Flag<unknown>): readonly string[] {
  return type.choices ?? [];
}

function bash(program: ProgramDescription, flags: readonly Entry[]): string {
  const words = flags.map(([name, { type }]) => type === onOff ? `--${name}` : `--${name}=`);
  const choices = flags.filter(([, flag]) => choicesOf(flag).length > 0)
    .map(([name, flag]) =>
      `    --${name}) COMPREPLY=($(compgen -W "${choicesOf(flag).join(" ")}" -- "$word")) ;;\n`
    );
  const functionName = `_${program.name.replaceAll("-", "_")}`;
  const verbs = verbsOf(program).map(({ name }) => name);
  return `# bash completion of ${program.name}
${functionName}() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]}
  # Bash splits --flag=value into three words.
  if [[ $word == "=" ]]; then word=; elif [[ $before == "=" ]]; then before=\${COMP_WORDS[COMP_CWORD-2]}; fi
  case $before in
${choices.join("")}    *)
      if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "${words.join(" ")}" -- "$word"))
        [[ \${COMPREPLY[0]-} == *= ]] && compopt -o nospace
      else
        COMPREPLY=($(compgen -W "${verbs.join(" ")}" -- "$word"))
      fi ;;
  esac
}
complete -F ${functionName} ${program.name}
`;
}

function zsh(program: ProgramDescription, flags: readonly Entry[]): string {
  const escape = (text: string) => text.replaceAll("'", "'\\''").replace(/[[\]:]/g, "\\$&");
  const lines = flags.map(([name, flag]) => {
    const explained = `--${name}${flag.type === onOff ? "" : "="}[${escape(flag.description)}]`;
    if (flag.type === onOff) return `  '${explained}'`;
    return `  '${explained}:${escape(flag.type.placeholder)}:(${choicesOf(flag).join(" ")})'`;
  });
  const verbs = verbsOf(program).map(({ name, what }) => `${name}\\:"${escape(what).replaceAll('"', "")}"`);
  if (verbs.length > 0) lines.push(`  '1:verb:((${verbs.join(" ")}))'`);
  return `#compdef ${program.name}\n_arguments \\\n${lines.join(" \\\n")}\n`;
}

function fish(program: ProgramDescription, flags: readonly Entry[]): string {
  const quote = (text: string) => `'${text.replace(/['\\]/g, "\\$&")}'`;
  const base = `complete -c ${program.name} -f`;
  const lines = flags.map(([name, flag]) => {
    const value = flag.type === onOff ? "" : ` -x -a ${quote(choicesOf(flag).join(" "))}`;
    return `${base} -l ${name}${value} -d ${quote(flag.description)}`;
  });
  const verbs = verbsOf(program).map(({ name, what }) =>
    `${base} -n __fish_use_subcommand -a ${name} -d ${quote(what)}`
  );
  return [`# fish completion of ${program.name}`, ...verbs, ...lines].join("\n") + "\n";
}
