/** Bytes in front of a message that say how long it is; and of a frame that carries fds (specification, section 1). */
export const HEADER_BYTES = 4;

/** A frame around a message. */
export function frame(message: Uint8Array, extraBytes = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES + message.length + extraBytes);
  new DataView(bytes.buffer).setUint32(0, message.length);
  bytes.set(message, HEADER_BYTES);
  return bytes;
}

/** What stands beside fds on their way: how many belong to the message. */
export function fdFrame(total: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES);
  new DataView(bytes.buffer).setInt32(0, total, true);
  return bytes;
}
