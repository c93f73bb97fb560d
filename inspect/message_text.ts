/** Messages as people read them. */

import type { ObservedMessage } from "./observer.ts";
import { printable } from "./table.ts";

/** Renders what is in a message. */
export type PayloadFormat = (payload: Uint8Array<ArrayBuffer>) => string;

/** Bytes of a message that are shown in hexadecimal. */
const HEX_BYTES_MAX = 1024;
const BYTES_PER_LINE = 16;

/** Offset, bytes, and the characters that they stand for; a line for 16 bytes. */
export function hexText(payload: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < Math.min(payload.length, HEX_BYTES_MAX); at += BYTES_PER_LINE) {
    const line = payload.subarray(at, Math.min(at + BYTES_PER_LINE, HEX_BYTES_MAX));
    const bytes = Array.from(line, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const characters = Array.from(
      line,
      (byte) => byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".",
    ).join("");
    lines.push(`  ${at.toString(16).padStart(6, "0")}  ${bytes.padEnd(3 * BYTES_PER_LINE)} ${characters}`);
  }
  if (payload.length > HEX_BYTES_MAX) lines.push(`  and ${payload.length - HEX_BYTES_MAX} more bytes`);
  return lines.join("\n");
}

/** UTF-8; what is none, and what would move the cursor, is shown by its code. */
export function utf8Text(payload: Uint8Array<ArrayBuffer>): string {
  return printable(new TextDecoder().decode(payload));
}

/** JSON on one line; what is none, as text. */
export function jsonText(payload: Uint8Array<ArrayBuffer>): string {
  try {
    return JSON.stringify(JSON.parse(new TextDecoder().decode(payload)));
  } catch {
    return `${utf8Text(payload)}  (no JSON)`;
  }
}

/** A format for messages of a protobuf type, as JSON. */
export async function protobufText(descriptorSet: Uint8Array, typeName: string): Promise<PayloadFormat> {
  const { createFileRegistry, fromBinary, toJson } = await import("@bufbuild/protobuf");
  const { FileDescriptorSetSchema } = await import("@bufbuild/protobuf/wkt");
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptorSet));
  const schema = registry.getMessage(typeName);
  if (schema === undefined) {
    const known = [...registry].filter(({ kind }) => kind === "message").map((it) => it.typeName).slice(0, 5);
    throw new Error(`the descriptor has no type ${typeName}; it has ${known.join(", ") || "none"}`);
  }
  return (payload) => {
    try {
      return JSON.stringify(toJson(schema, fromBinary(schema, payload), { registry }));
    } catch (error) {
      return `${utf8Text(payload)}  (no ${typeName}: ${error instanceof Error ? error.message : error})`;
    }
  };
}

/** A message as a line, or several: its ordinal, its size, and what is in it. */
export function messageText({ ordinal, bytes, payload }: ObservedMessage, format: PayloadFormat): string {
  const text = payload === null ? "" : format(payload);
  const below = text.startsWith("  ");
  return `${ordinal}  ${bytes} B${below ? "\n" : "  "}${text}\n`;
}
