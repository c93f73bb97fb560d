import assert from "node:assert/strict";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { Shadow, type ShadowOptions } from "../../shadow/shadow.ts";
import { Connection } from "../../wire/connection.ts";
import { sendEvent } from "../../wire/shadow_link.ts";
import { closeDump, receiveDump } from "../../wire/state_dump.ts";
import { withBalancedFds } from "../open_fds.ts";
import { asOtherUser, mayBeOthers, OTHER_UID } from "../other_user.ts";
import { uniqueSocket } from "../program.ts";
import { fdsFor, until } from "./peer.ts";

/** A test with a shadow and somebody else's connection to it. */
function test(
  name: string,
  rules: Pick<ShadowOptions, "readers" | "writers">,
  run: (shadow: Shadow, other: Connection) => Promise<void>,
): void {
  Deno.test({
    name: `${name} (needs root)`,
    ignore: !mayBeOthers,
    fn: () =>
      withBalancedFds(async () => {
        const socket = uniqueSocket("shadow");
        using shadow = Shadow.start({ socket, ...rules });
        using other = new Connection(asOtherUser(() => connectAbstract(socket)));
        await run(shadow, other);
      }),
  });
}

function write(connection: Connection): void {
  const fds = fdsFor({ case: "init", value: {} });
  sendEvent(connection, { event: { case: "init", value: { sessionId: 7n } } }, fds);
  for (const fd of fds) fd.close();
}

test("another user gets no state", {}, async (shadow, other) => {
  await assert.rejects(receiveDump(other), /the connection was closed/);
  assert.deepEqual(shadow.counters.refusals.totals(), { access: 1 });
  assert.equal(shadow.connections, 0);
});

test("who may read cannot write", { readers: { users: [OTHER_UID] } }, async (shadow, other) => {
  closeDump(await receiveDump(other));
  write(other);
  await until("it is refused", () => shadow.counters.refusals.of("write_access") === 1);
  assert.equal(shadow.state.sessionId, 0n);
  assert.equal(shadow.connections, 0);
});

test(
  "who may read cannot move the shadow's position, with whatever is not known here",
  { readers: { users: [OTHER_UID] } },
  async (shadow, other) => {
    closeDump(await receiveDump(other));
    const before = shadow.position;
    // Field 2000 of an event, which nobody knows, and offset 77.
    other.send(Uint8Array.of(0x82, 0x7d, 0, 0x90, 0x3f, 77));
    write(other);
    await until("all is read", () => shadow.connections === 0);
    assert.deepEqual(shadow.position, before);
    assert.equal(shadow.counters.events, 0);
  },
);

test("who may write can read too", { writers: { users: [OTHER_UID] } }, async (shadow, other) => {
  closeDump(await receiveDump(other));
  write(other);
  await until("it is written", () => shadow.state.sessionId === 7n);
  assert.deepEqual(shadow.counters.refusals.totals(), {});
});
