// The lock-free core: every algorithm of section 5 of the specification that works on control blocks alone.
// AssemblyScript, compiled by `deno task core`. Addresses are offsets in the arena.

export { abandonSlot, beginPublish, endPublish } from "./publish";
export { assignBuffer, claimReliable, claimUnreliable, hasVacancy } from "./claim";
export { beginRinging, fallAsleep, forgetSleeper, goOnRinging, staySignalled, wakeUp } from "./doorbell";
export { find } from "./find";
export { reclaim, retire } from "./lease";
export { hasNews, mayHaveUnread, readNewest, readNext, release, skipEntry } from "./read";
export { clearHazard, registerSubscriber, removePublisher, removeSubscriber } from "./registry";
export { allocateQueue, checkArena, reconcileQueues, retireQueue } from "./queue_arena";
export { freeReferences, suspectReferences } from "./reclaim";
export { endDoubts } from "./reuse";
