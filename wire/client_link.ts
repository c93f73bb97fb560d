/** The link between a client and a server: requests one way, responses the other (specification, section 2). */

import { fromBinary, type Init, toBinary } from "../proto/message.ts";
import type { Fd } from "../ffi/fd.ts";
import { RequestSchema, ResponseSchema } from "../proto/subspace.ts";
import type { Request, Response } from "../proto/subspace_pb.ts";
import { type Codec, type Connection, ProtocolError } from "./connection.ts";

/** What a server reads. Fds follow a registration of a client buffer that has one, and nothing else. */
export const requestCodec: Codec<Request> = {
  decode: (bytes) => decode("request", () => fromBinary(RequestSchema, bytes)),
  fdsFollow: ({ request }) => request.case === "registerClientBuffer" && request.value.hasFd,
};

/** What a client reads. An fd frame, if only an empty one, follows every response. */
export const responseCodec: Codec<Response> = {
  decode: (bytes) => decode("response", () => fromBinary(ResponseSchema, bytes)),
  fdsFollow: () => true,
};

/** Runs a decoder; the wording is the reference's, which users match on (section 8.4). */
export function decode<Message>(what: string, decoder: () => Message): Message {
  try {
    return decoder();
  } catch (error) {
    throw new ProtocolError(`Failed to parse ${what}: ${error instanceof Error ? error.message : error}`);
  }
}

/** Sends a request. Only a registration of a client buffer takes an fd. */
export function sendRequest(
  connection: Connection,
  request: Init<Request>,
  fd?: Fd,
): void {
  connection.send(
    toBinary(RequestSchema, request),
    fd === undefined ? undefined : [fd],
  );
}

/** Sends a response and the fds that its indexes count into. */
export function sendResponse(
  connection: Connection,
  response: Init<Response>,
  fds: readonly Fd[],
): void {
  connection.send(toBinary(ResponseSchema, response), fds);
}
