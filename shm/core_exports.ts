/** What the WebAssembly core exports. Addresses are offsets in the arena; results are slot ids or `Outcome`s. */

/** Exports of `shm/core/core.ts`. `publisher` and so on are addresses of private structs (`structs.ts`). */
export interface CoreExports {
  claimUnreliable(publisher: number): number;
  claimReliable(publisher: number, withoutSubscribers: number): number;
  endDoubts(publisher: number): void;
  hasVacancy(publisher: number): number;
  assignBuffer(publisher: number, slotAddress: number): void;
  beginPublish(publisher: number, size: number, activation: number): void;
  /** The first subscriber to be woken, or -1. */
  endPublish(publisher: number, size: number, activation: number): number;
  abandonSlot(publisher: number): void;
  reclaim(publisher: number, slotId: number): number;
  retire(publisher: number, slotId: number): void;

  readNext(subscriber: number): number;
  readNewest(subscriber: number): number;
  find(subscriber: number, timestampLow: number, timestampHigh: number): number;
  skipEntry(subscriber: number): void;
  release(subscriber: number, slotId: number): number;
  mayHaveUnread(subscriber: number): number;
  hasNews(subscriber: number): number;

  fallAsleep(bell: number, id: number): void;
  wakeUp(bell: number, id: number): void;
  staySignalled(bell: number, id: number): void;
  forgetSleeper(bell: number, id: number): void;
  /** A user id, or -1. */
  beginRinging(ringer: number): number;
  goOnRinging(ringer: number): number;

  registerSubscriber(channel: number, id: number, vchanId: number, isNew: number, scratch: number): void;
  removeSubscriber(channel: number, id: number, reliable: number, scratch: number): number;
  removePublisher(channel: number, id: number): void;
  clearHazard(channel: number, publisherId: number): void;
  suspectReferences(channel: number, suspects: number): number;
  freeReferences(channel: number, suspects: number, reliable: number): number;

  checkArena(channel: number): number;
  allocateQueue(channel: number, subscriberId: number, capacity: number, dropOldest: number): number;
  retireQueue(channel: number, subscriberId: number): number;
  reconcileQueues(channel: number): number;
}
