/** Waits across a change of servers. */

import { Waiter } from "../../client/waiter.ts";
import type { Control } from "../../client/control.ts";
import { createEventFd } from "../../ffi/eventfd.ts";
import type { ControlBlocks } from "../../shm/control_blocks.ts";
import { SleepFlag } from "../../shm/doorbell.ts";
import { withBalancedFds } from "../open_fds.ts";

Deno.test("a trigger may come back under a number that it had before", () =>
  withBalancedFds(() => {
    // As servers that take over do, somebody else has it open all the time.
    using trigger = createEventFd();
    const control = { connected: true, socket: null, pump() {} } as unknown as Control;
    const flag = new SleepFlag({ doorbell: () => 0 } as unknown as ControlBlocks, "subscribers", 0);
    const waiter = new Waiter(control, trigger.duplicate(), flag, {
      holds: () => false,
      mayHold: () => true,
    });
    for (let i = 0; i < 3; i++) {
      waiter.waitSync({ timeoutMs: 1 });
      waiter.replace(trigger.duplicate(), flag);
    }
    waiter.waitSync({ timeoutMs: 1 });
    waiter.close(null);
  }));
