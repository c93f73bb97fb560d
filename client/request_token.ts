/** Requests that may have to be repeated. */

/**
 * A number for all requests that make the same thing: should the server die, one that it has granted is not granted
 * twice.
 */
export function requestToken(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0];
}
