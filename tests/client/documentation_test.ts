/** The examples of docs/client.md run as they are. */

import { Server } from "../../server/server.ts";
import { inRepository, uniqueSocket } from "../program.ts";

const readable = Deno.permissions.querySync({ name: "read" }).state === "granted";
const reason = readable ? "" : " (skipped: needs permission to read)";

/** The TypeScript of a page, each block with the title of its section. */
function examples(): { title: string; code: string }[] {
  if (!readable) return [{ title: "all", code: "" }];
  const page = Deno.readTextFileSync(inRepository("docs/client.md"));
  return page.split(/^#+ /m).flatMap((section) => {
    const title = section.split("\n")[0];
    return [...section.matchAll(/^```ts\n([^]*?)^```/gm)].map(([, code], i) => ({
      title: `${title}, ${i + 1}`,
      code,
    }));
  });
}

for (const { title, code } of examples()) {
  const fn = async () => {
    const socket = uniqueSocket("documentation");
    const server = await Server.start({ socket, local: true });
    const library = new URL("../../mod.ts", import.meta.url).href;
    const program = `const socket = ${JSON.stringify(socket)};\n` +
      code.replaceAll("@subspace/deno", library);
    const { log } = console;
    console.log = () => {};
    try {
      await import(`data:application/typescript,${encodeURIComponent(program)}`);
    } finally {
      console.log = log;
      await server.stop();
    }
  };
  Deno.test({ name: `docs/client.md: ${title}${reason}`, ignore: !readable, fn });
}
