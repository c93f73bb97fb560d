/** Who comes back after a restart is sent no fds that it has already: what only clients of ours ask for. */

import assert from "node:assert/strict";
import { Server } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { RawClient } from "./raw_client.ts";

const channel = "/kept";
/** Of the control blocks and of a user: what is left out. */
const OWN_FDS = 4;

const test = (
  name: string,
  run: (before: RawClient, restart: () => Promise<RawClient>) => Promise<void>,
) =>
  Deno.test(name, () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("server"), shadowSocket = uniqueSocket("shadow");
      using _shadow = Shadow.start({ socket: shadowSocket });
      const start = () => Server.start({ socket, shadowSocket, publishServerChannels: false });
      let server = await start();
      using stack = new DisposableStack();
      const restart = async () => {
        await server.stop();
        server = await start();
        return stack.use(await RawClient.connect(socket));
      };
      try {
        await run(stack.use(await RawClient.connect(socket)), restart);
      } finally {
        await server.stop(true);
      }
    }));

/** The file of the control block in the last answer, as a client says that it has it. */
function mapped({ fds }: RawClient, { ccbFdIndex }: { ccbFdIndex: number }) {
  const { inode: mappedInode, device: mappedDevice } = fds[ccbFdIndex].stat();
  return { mappedInode, mappedDevice };
}

test(
  "a publisher and a subscriber that have their memory get only the fds of others",
  async (before, restart) => {
    const { publisherId } = await before.createPublisher(channel, { requestToken: 7n });
    const subscriber = await before.createSubscriber(channel, { requestToken: 8n });
    const has = mapped(before, subscriber), { subscriberId } = subscriber;
    const client = await restart();
    const back = await client.createPublisher(channel, { publisherId, requestToken: 7n, ...has });
    assert.deepEqual([back.error, back.publisherId, back.unchanged], ["", publisherId, true]);
    assert.deepEqual([back.subTriggerFdIndexes, client.fds.length], [[0], 1]);
    const { unchanged, error } = await client.createSubscriber(channel, {
      subscriberId,
      requestToken: 8n,
      ...has,
    });
    assert.deepEqual([error, unchanged, client.fds.length], ["", true, 0]);
  },
);

test("who has other memory, or may be somebody else, gets all of it", async (before, restart) => {
  const tokens = [11n, 12n, 13n, 0n, 15n];
  const ids: number[] = [];
  for (const requestToken of tokens) {
    ids.push((await before.createPublisher(channel, { numSlots: 16, requestToken })).publisherId);
  }
  const has = mapped(before, await before.createPublisher(channel));
  const client = await restart();
  const claims = [
    { publisherId: ids[0], requestToken: tokens[0], ...has, mappedInode: has.mappedInode + 1n },
    { publisherId: ids[1], requestToken: tokens[1], ...has, mappedDevice: has.mappedDevice + 1n },
    // By its token alone: the id that it names is another's, and so may be what it has.
    { publisherId: 99, requestToken: tokens[2], ...has },
    { publisherId: ids[3], requestToken: 14n, ...has },
    { publisherId: ids[4], requestToken: 0n, ...has },
    { publisherId: -1, requestToken: 16n, ...has },
  ].map((claim) => ({ numSlots: 16, ...claim }));
  for (const claim of claims) {
    const { error, unchanged } = await client.createPublisher(channel, claim);
    assert.deepEqual([error, unchanged, client.fds.length], ["", false, OWN_FDS]);
  }
});

test("a subscriber whose channel has got its memory meanwhile gets it", async (before, restart) => {
  const subscriber = await before.createSubscriber(channel, { requestToken: 8n });
  const has = mapped(before, subscriber);
  await before.createPublisher(channel, { requestToken: 7n });
  const client = await restart();
  const { subscriberId } = subscriber;
  const back = await client.createSubscriber(channel, { subscriberId, requestToken: 8n, ...has });
  assert.deepEqual([back.error, back.unchanged, client.fds.length], ["", false, OWN_FDS]);
});
