/** `subspace-inspect publish CHANNEL [FILE]`: publishes what it is given. The one verb that changes something. */

import { Client } from "../../client/client.ts";
import type { Publisher } from "../../client/publisher.ts";
import { InspectError } from "../../inspect/link.ts";
import { formatBytes, formatNumberOf } from "../../inspect/units.ts";
import { ExitCode } from "../exit_codes.ts";
import { writeOut } from "../output.ts";
import { readBytes } from "./files.ts";
import type { InspectFlags } from "./flags.ts";
import { Progress } from "./progress.ts";

/** Publishes each line of the input, or all of it at once. */
export async function runPublish(flags: InspectFlags, [channel, path]: readonly string[]): Promise<number> {
  const input = path === undefined || path === "-" ? await readInput() : readBytes(path);
  const messages = flags.whole ? [input] : linesOf(input);
  if (messages.length === 0 || messages[0].length === 0) {
    throw new InspectError(
      `Cannot publish on ${channel}: the input is empty, and a message has at least one byte`,
    );
  }
  const largest = messages.reduce((most, { length }) => Math.max(most, length), 0);
  await using client = await connect(flags.server, channel);
  await using publisher = await client.createPublisher(channel, {
    slotBytes: largest,
    numSlots: flags.slots,
    reliable: flags.reliable,
  });
  const bytes = await publishAll(publisher, messages);
  const report = { schemaVersion: 1, channel, messages: messages.length, bytes };
  writeOut(
    flags.json
      ? JSON.stringify(report) + "\n"
      : `Published ${formatNumberOf(messages.length, "message")}, ${formatBytes(bytes)}\n`,
  );
  return ExitCode.ok;
}

async function connect(server: string, channel: string): Promise<Client> {
  try {
    return await Client.connect({ socket: server, name: "subspace-inspect" });
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^Cannot /, "cannot ") : error;
    throw new InspectError(`Cannot publish on ${channel}: ${reason}; name a server with --server`);
  }
}

async function publishAll(
  publisher: Publisher,
  messages: readonly Uint8Array<ArrayBuffer>[],
): Promise<number> {
  using progress = new Progress();
  let bytes = 0;
  for (const [i, message] of messages.entries()) {
    await publisher.send(message);
    bytes += message.length;
    progress.bar(i + 1, messages.length);
  }
  return bytes;
}

/** Lines without their ends; empty ones are left out, as messages cannot be empty. */
export function linesOf(input: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>[] {
  const lines: Uint8Array<ArrayBuffer>[] = [];
  for (let from = 0; from < input.length;) {
    const end = input.indexOf(10, from);
    const to = end < 0 ? input.length : end;
    if (to > from) lines.push(input.subarray(from, to));
    from = to + 1;
  }
  return lines;
}

async function readInput(): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for await (const chunk of Deno.stdin.readable) chunks.push(chunk);
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}
