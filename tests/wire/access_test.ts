import assert from "node:assert/strict";
import { AccessPolicy, type Peer, peerText } from "../../wire/access.ts";
import { Refusals, unsaidText } from "../../wire/refusals.ts";

const OWN = 1000;

function peer(uid: number, gid = uid, supplementary: number[] = []): Peer {
  return { pid: 1, uid, gid, supplementaryGroups: () => supplementary };
}

Deno.test("without rules root and the same user are let in, and nobody else", () => {
  const policy = new AccessPolicy(OWN);
  assert(policy.admits(peer(0)));
  assert(policy.admits(peer(OWN)));
  assert(!policy.admits(peer(1001)));
  assert(!policy.admits(peer(1001, OWN)), "a group is no user");
  assert(!policy.admits(peer(65534)), "a user of another namespace");
});

Deno.test("users and groups that are named are let in, by their own group or another of theirs", () => {
  const policy = new AccessPolicy(OWN, { users: [7], groups: [50] });
  assert(policy.admits(peer(7)));
  assert(policy.admits(peer(8, 50)));
  assert(policy.admits(peer(8, 8, [49, 50])));
  assert(!policy.admits(peer(8, 8, [49, 51])));
  assert(!policy.admits(peer(50, 8)), "a user id is no group id");
});

Deno.test("everybody is let in where that is asked for", () => {
  assert(new AccessPolicy(OWN, { anybody: true }).admits(peer(0xffff_ffff)));
});

Deno.test("groups are not asked for where none is allowed", () => {
  const supplementaryGroups = () => assert.fail("asked");
  assert(!new AccessPolicy(OWN).admits({ pid: 1, uid: 5, gid: 5, supplementaryGroups }));
});

Deno.test("a peer whose process cannot be seen is shown as such", () => {
  assert.equal(peerText(peer(5, 6)), "uid 5, gid 6, pid 1");
  assert.equal(peerText({ ...peer(5, 6), pid: 0 }), "uid 5, gid 6, pid unknown");
});

Deno.test("a flood of refusals is counted in full and logged once a second", () => {
  const refusals = new Refusals();
  const second = 1_000_000_000n;
  let lines = 0;
  for (let i = 0; i < 1000; i++) if (refusals.count("access", 5n).log) lines++;
  assert.equal(lines, 10);
  assert.equal(refusals.of("access"), 1000);
  assert.deepEqual(refusals.count("access", second), { log: false, unsaid: 991 });
  const later = refusals.count("access", 5n + second);
  assert.deepEqual(later, { log: true, unsaid: 991 });
  assert.equal(unsaidText(later), " (and 991 more since the last such line)");
  assert.equal(unsaidText(refusals.count("frame", 0n)), "");
  assert.deepEqual(refusals.totals(), { access: 1002, frame: 1 });
});

Deno.test("after a quiet time refusals are logged at once again", () => {
  const refusals = new Refusals();
  for (let i = 0; i < 20; i++) refusals.count("access", 0n);
  const verdicts = Array.from({ length: 12 }, () => refusals.count("access", 1_000_000_000_000n).log);
  assert.equal(verdicts.filter(Boolean).length, 10);
});
