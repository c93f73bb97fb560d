/** Numbers by which servers know again what they were told before. */

/**
 * A number that nobody else has: for a client, or for all requests that make the same thing. Should the server die, what
 * it has granted is not granted twice.
 */
export function newToken(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0];
}
