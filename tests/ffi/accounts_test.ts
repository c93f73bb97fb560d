import assert from "node:assert/strict";
import { groupId, userId } from "../../ffi/accounts.ts";
import { fdLimit, setFdLimit } from "../../ffi/resource_limits.ts";
import { peerGroups, socketPair } from "../../ffi/unix_socket.ts";
import { prepareFds } from "../../cli/fd_limit.ts";
import { withBalancedFds } from "../open_fds.ts";

Deno.test("users and groups are found by name, and unknown ones are not", () => {
  assert.equal(userId("root"), 0);
  assert.equal(groupId("root"), 0);
  assert.equal(userId("no such user"), null);
  assert.equal(groupId("no such group"), null);
});

const mayRead = Deno.permissions.querySync({ name: "read" }).state === "granted";

Deno.test({
  name: "the supplementary groups of a peer are those that the kernel shows (needs permission to read)",
  ignore: !mayRead,
  fn: () =>
    withBalancedFds(() => {
      const status = Deno.readTextFileSync("/proc/self/status");
      const expected = status.match(/^Groups:(.*)$/m)![1].split(/\s+/).filter(Boolean).map(Number);
      const [one, other] = socketPair();
      assert.deepEqual(peerGroups(one), expected);
      one.close();
      other.close();
    }),
});

Deno.test("the limit of fds goes no further than the hard one, and too little is said", () => {
  const { soft, hard } = fdLimit();
  try {
    assert.equal(setFdLimit(hard + 1).soft, hard);
    assert.equal(prepareFds(0, 1), null);
    assert.equal(fdLimit().soft, hard);
    assert.match(
      String(prepareFds(600, 100)),
      /^This process may open 600 file descriptors, enough for about 67 clients; 100 may need 828: raise .*$/,
    );
    assert.equal(fdLimit().soft, 600);
  } finally {
    setFdLimit(soft);
  }
});
