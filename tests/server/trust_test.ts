import assert from "node:assert/strict";
import { Shadow } from "../../shadow/shadow.ts";
import { withBalancedFds } from "../open_fds.ts";
import { asOtherUser, mayBeOthers, OTHER_UID } from "../other_user.ts";
import { uniqueSocket } from "../program.ts";
import { until } from "../shadow/peer.ts";
import { Core } from "./core.ts";

/** A server, and the shadow of another user where it looks for its own. */
async function withTheirShadow(
  trusted: readonly number[],
  run: (shadow: Shadow, core: Core) => Promise<void> | void,
): Promise<void> {
  const primary = uniqueSocket("shadow");
  using shadow = asOtherUser(() => Shadow.start({ socket: primary }));
  await using core = await Core.start({ primary, trusted: { users: trusted } });
  await run(shadow, core);
}

Deno.test({
  name: "who listens at a shadow's socket and is another user gets nothing, unless trusted (needs root)",
  ignore: !mayBeOthers,
  fn: () =>
    withBalancedFds(async () => {
      await withTheirShadow([], async (shadow, core) => {
        core.channel("/a");
        await core.replication.close();
        await until("it has read all", () => shadow.counters.accepted > 0 && shadow.connections === 0);
        assert.equal(shadow.state.sessionId, 0n);
      });
      await withTheirShadow(
        [OTHER_UID],
        (shadow) => until("it is told the session", () => shadow.state.sessionId !== 0n),
      );
    }),
});
