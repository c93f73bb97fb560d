/** A request cannot be granted. The message crosses the wire: it begins with the reference's text. */
export class RequestError extends Error {
  override readonly name = "RequestError";
}

/** Kinds of failure that the reference puts in front of some of its texts. */
export type Status =
  | "INTERNAL"
  | "INVALID_ARGUMENT"
  | "RESOURCE_EXHAUSTED"
  | "PERMISSION_DENIED";

/** An error that carries a status in front. */
export function requestError(status: Status, text: string): RequestError {
  return new RequestError(`${status}: ${text}`);
}
