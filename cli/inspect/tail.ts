/** `subspace-inspect tail CHANNEL`: messages as they come. */

import {
  hexText,
  jsonText,
  messageText,
  type PayloadFormat,
  protobufText,
  utf8Text,
} from "../../inspect/message_text.ts";
import { InspectError } from "../../inspect/link.ts";
import { SCHEMA_VERSION } from "../../inspect/model.ts";
import { formatNumberOf } from "../../inspect/units.ts";
import { ExitCode } from "../exit_codes.ts";
import { FlagError } from "../flags.ts";
import { writeError, writeOut } from "../output.ts";
import { readBytes } from "./files.ts";
import type { InspectFlags } from "./flags.ts";
import { follow, repeatedly } from "./observing.ts";
import { endLine } from "./screen.ts";

/** Prints the messages of a channel, until it is stopped. */
export async function runTail(flags: InspectFlags, [channel]: readonly string[]): Promise<number> {
  if (flags.format === "proto" && flags.descriptor === "") {
    throw new FlagError("ERROR: --format=proto needs --descriptor=FILE");
  }
  using followed = await follow(flags, channel);
  const { source, type } = followed;
  const format = await formatOf(flags, type);
  let shown = 0, missed = 0;
  const stopped = await repeatedly([followed], () => {
    const messages = source.poll(true).filter(({ activation }) => !activation);
    if (source.missed > missed) {
      writeError(`${formatNumberOf(source.missed - missed, "message")} too fast to see\n`);
    }
    missed = source.missed;
    for (const message of messages) {
      const { ordinal, timestampNs, bytes, payload, metadata } = message;
      const data = { schemaVersion: SCHEMA_VERSION, channel, ordinal, timestampNs, bytes };
      const base64 = payload?.toBase64() ?? null;
      const text = flags.json
        ? JSON.stringify({ ...data, base64, metadataBase64: metadata.toBase64() }) + "\n"
        : messageText(message, format);
      if (!writeOut(text) || ++shown === flags.count) return "done";
    }
    return messages.length > 0 ? "busy" : "idle";
  });
  endLine(stopped);
  return ExitCode.ok;
}

async function formatOf(flags: InspectFlags, channelType: string): Promise<PayloadFormat> {
  switch (flags.format) {
    case "hex":
      return hexText;
    case "text":
      return utf8Text;
    case "json":
      return jsonText;
    case "proto": {
      const descriptor = readBytes(flags.descriptor);
      try {
        return await protobufText(descriptor, flags.type || channelType);
      } catch (error) {
        throw new InspectError(
          `Cannot use descriptor ${flags.descriptor}: ${error instanceof Error ? error.message : error}`,
        );
      }
    }
  }
}
