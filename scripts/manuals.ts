/** Writes manual pages, completions and units, under the paths that they are installed to: `deno task compile`. */

import { renderCompletion } from "../cli/completion.ts";
import { program as inspect } from "../cli/inspect.ts";
import { renderManual } from "../cli/manual.ts";
import type { ProgramDescription } from "../cli/program.ts";
import { program as server } from "../cli/server.ts";
import { program as shadow } from "../cli/shadow.ts";

const programs: readonly ProgramDescription[] = [server, shadow, inspect];

/** Writes everything that is installed beside the programs into a folder: what is in it goes to `/usr/local`. */
export async function writeManuals(folder: string): Promise<void> {
  for (const program of programs) {
    const { name } = program;
    await write(`${folder}/share/man/man1/${name}.1`, renderManual(program));
    const completions = {
      bash: `bash-completion/completions/${name}`,
      zsh: `zsh/site-functions/_${name}`,
      fish: `fish/vendor_completions.d/${name}.fish`,
    } as const;
    for (const shell of ["bash", "zsh", "fish"] as const) {
      await write(`${folder}/share/${completions[shell]}`, renderCompletion(program, shell));
    }
  }
  const units = new URL("../systemd/", import.meta.url);
  for await (const { name } of Deno.readDir(units)) {
    await write(`${folder}/lib/systemd/system/${name}`, await Deno.readTextFile(new URL(name, units)));
  }
}

async function write(path: string, text: string): Promise<void> {
  await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
  await Deno.writeTextFile(path, text);
}
