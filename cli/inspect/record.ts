/** `subspace-inspect record CHANNEL... FILE`: messages to a file, as they come. */

import { InspectError } from "../../inspect/link.ts";
import type { ObservedMessage } from "../../inspect/observer.ts";
import { SCHEMA_VERSION } from "../../inspect/model.ts";
import { type RecordedChannel, RecordingWriter } from "../../inspect/recording.ts";
import { formatBytes, formatNumberOf } from "../../inspect/units.ts";
import { ExitCode } from "../exit_codes.ts";
import { writeOut } from "../output.ts";
import { createFile, FileError } from "./files.ts";
import type { InspectFlags } from "./flags.ts";
import { type ChannelFacts, follow, type Followed, type Look, repeatedly } from "./observing.ts";
import { Progress } from "./progress.ts";

/** Records channels until it is stopped, or has recorded so many messages. */
export async function runRecord(flags: InspectFlags, operands: readonly string[]): Promise<number> {
  const path = operands.at(-1)!, channels = operands.slice(0, -1);
  using stack = new DisposableStack();
  const followed: Followed[] = [];
  for (const channel of channels) followed.push(stack.use(await follow(flags, channel)));
  // Nothing is overwritten for a channel that is not there.
  const file = stack.use(createFile(path));
  const start = { recordedAt: new Date().toISOString(), source: flags.socket };
  const writer = writing(path, () => new RecordingWriter(file, start));
  const indexes = new Map<Followed, number>();
  using progress = new Progress();
  const missed = () => followed.reduce((sum, { source }) => sum + source.missed, 0);
  await repeatedly(followed, () => {
    let found: Look = "idle";
    for (const it of followed) {
      for (const message of it.source.poll(true)) {
        found = "busy";
        writing(path, () => {
          // Now that there is a message it is known what it takes to make the channel.
          const index = indexes.get(it) ?? writer.channel(recorded(it.facts(), message));
          indexes.set(it, index);
          writer.write(index, message);
        });
        if (writer.messages === flags.count) return "done";
      }
    }
    progress.line(() => summary(writer, missed()));
    return found;
  });
  writing(path, () => writer.end(missed()));
  progress[Symbol.dispose]();
  const { messages, bytes } = writer;
  writeOut(
    flags.json
      ? JSON.stringify({
        schemaVersion: SCHEMA_VERSION,
        file: path,
        channels,
        messages,
        bytes,
        missed: missed(),
      }) + "\n"
      : `Recorded ${summary(writer, missed())} to ${path}\n` +
        (missed() === 0 || flags.subscribe ? "" : "With --subscribe fewer are missed.\n"),
  );
  return ExitCode.ok;
}

function summary({ messages, bytes }: RecordingWriter, missed: number): string {
  const lost = missed === 0 ? "" : `, ${formatNumberOf(missed, "message")} too fast to see`;
  return `${formatNumberOf(messages, "message")}, ${formatBytes(bytes)}${lost}`;
}

/** A server does not tell how long metadata is: the message does. */
function recorded({ type, ...facts }: ChannelFacts, { metadata }: ObservedMessage): RecordedChannel {
  const metadataBytes = Math.max(facts.metadataBytes, metadata.length);
  return { ...facts, metadataBytes, type: type.toBase64() };
}

/** A disk that is full is no reason for a stack trace. */
function writing<T>(path: string, write: () => T): T {
  try {
    return write();
  } catch (error) {
    if (error instanceof FileError || error instanceof InspectError) throw error;
    throw new FileError(`Cannot write ${path}: ${error instanceof Error ? error.message : error}`);
  }
}
