/** `subspace-inspect replay FILE`: publishes what was recorded, as fast as it came or faster. */

import { Client } from "../../client/client.ts";
import type { Publisher } from "../../client/publisher.ts";
import { InspectError } from "../../inspect/link.ts";
import { SCHEMA_VERSION } from "../../inspect/model.ts";
import { RecordingReader, type RecordingSummary, summaryOf } from "../../inspect/recording.ts";
import { formatAge, formatNumberOf } from "../../inspect/units.ts";
import { ExitCode } from "../exit_codes.ts";
import { writeError, writeOut } from "../output.ts";
import { stopSignal } from "../stopping.ts";
import { FileError, openFile } from "./files.ts";
import type { InspectFlags } from "./flags.ts";
import { Pause } from "./pause.ts";
import { Progress } from "./progress.ts";

/** How long to wait for a slot before it is looked whether to stop. */
const WAIT_MS = 100;
/** Messages before signals get their turn. */
const MESSAGES_PER_TURN = 64;

/** Replays a recording that is whole, or what is good of it where that is asked for. */
export async function runReplay(flags: InspectFlags, [path]: readonly string[]): Promise<number> {
  const summary = check(path);
  if (summary.problem !== null) refuse(path, summary, flags.partial);
  await using client = await connect(flags.server, path);
  const publishers: Publisher[] = [];
  for (const channel of summary.channels) publishers.push(await publisherOf(client, channel));
  const published = await publishAll(path, summary, publishers, flags.speed);
  const { channels, messages } = summary;
  const activations = channels.reduce((sum, channel) => sum + channel.activations, 0);
  const whole = published === messages - activations;
  const many = whole
    ? formatNumberOf(published, "message")
    : `${published} of ${formatNumberOf(messages - activations, "message")}`;
  writeOut(
    flags.json
      ? JSON.stringify({
        schemaVersion: SCHEMA_VERSION,
        file: path,
        channels: channels.map(({ name }) => name),
        messages: published,
        of: messages - activations,
        problem: summary.problem,
      }) + "\n"
      : `Replayed ${many} of ${formatNumberOf(channels.length, "channel")}\n`,
  );
  return whole ? ExitCode.ok : ExitCode.failure;
}

function check(path: string): RecordingSummary {
  using file = openFile(path);
  using progress = new Progress();
  const { size } = file.statSync();
  return summaryOf(new RecordingReader(file, size), (bytes) => progress.bar(bytes, size, "checked"));
}

function refuse(path: string, summary: RecordingSummary, partial: boolean): void {
  const { problem, goodBytes, bytes, messages, channels } = summary;
  if (channels.length === 0) throw new FileError(`Cannot replay ${path}: ${problem}`);
  const good = `${formatNumberOf(messages, "message")}, ${goodBytes} of ${bytes} bytes, are good`;
  if (!partial) throw new FileError(`Cannot replay ${path}: ${problem}; ${good}: replay them with --partial`);
  writeError(`${path} is damaged: ${problem}; ${good}, and replayed\n`);
}

async function connect(server: string, path: string): Promise<Client> {
  try {
    return await Client.connect({ socket: server, name: "subspace-inspect" });
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^Cannot /, "cannot ") : error;
    throw new InspectError(`Cannot replay ${path}: ${reason}; name a server with --server`);
  }
}

async function publisherOf(
  client: Client,
  channel: RecordingSummary["channels"][number],
): Promise<Publisher> {
  const { name, numSlots, maxMessageBytes, reliable, checksumBytes, metadataBytes, mux, vchanId, type } =
    channel;
  try {
    return await client.createPublisher(name, {
      slotBytes: Math.max(1, maxMessageBytes),
      numSlots: Math.max(2, numSlots),
      reliable,
      checksumBytes: Math.max(4, checksumBytes),
      metadataBytes,
      type: Uint8Array.fromBase64(type),
      ...(mux === "" ? {} : { mux, vchanId }),
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : error;
    throw new InspectError(`Cannot replay channel ${name}: ${reason}`);
  }
}

/** Publishes all messages in their time. Returns how many: fewer where somebody stops it. */
async function publishAll(
  path: string,
  { firstNs, durationNs, goodBytes, messages }: RecordingSummary,
  publishers: readonly Publisher[],
  speed: number,
): Promise<number> {
  using file = openFile(path);
  using progress = new Progress();
  const pause = new Pause(stopSignal());
  const reader = new RecordingReader(file, goodBytes);
  const begun = performance.now();
  let published = 0, seen = 0;
  for (let record = reader.next(); record !== null && !pause.over; record = reader.next()) {
    if (record.kind !== "message") continue;
    const { channel, activation, timestampNs, metadata, payload } = record.message;
    seen++;
    // Publishers say themselves that they are there.
    if (activation) continue;
    const dueMs = (timestampNs - firstNs) / 1e6 / speed - (performance.now() - begun);
    if (dueMs > 0) await pause.wait(dueMs);
    while (!pause.over && !publishers[channel].publish(payload, metadata)) {
      await publishers[channel].wait({ timeoutMs: WAIT_MS });
    }
    if (pause.over) break;
    published++;
    if (published % MESSAGES_PER_TURN === 0) await pause.wait(0);
    progress.bar(
      seen,
      messages,
      `${seen} of ${messages}, ${formatAge((timestampNs - firstNs) / 1e6)} of ${formatAge(durationNs / 1e6)}`,
    );
  }
  return published;
}
