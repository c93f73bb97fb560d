/**
 * What the server is told of the parts of a channel's split buffers, and what it says of them (specification, sections
 * 2.8 to 2.10).
 *
 * Invariants: nothing waits for the server; an fd to be registered is opened when it is its turn; the reference's
 * server is told nothing that may make it crash (section 9.2, 3).
 */

import { getLogger } from "@logtape/logtape";
import { monotonicMs } from "../ffi/clock.ts";
import type { Fd } from "../ffi/fd.ts";
import { ClientBufferAllocator } from "../proto/subspace.ts";
import type { GetClientBuffersResponse } from "../proto/subspace_pb.ts";
import type { PartMetadata, PartRegistry, RegisteredSlots } from "../shm/split_buffers.ts";
import type { RegisteredSlot } from "../shm/split_memory.ts";
import type { ChannelCounters } from "../shm/system_control_block.ts";
import { type AnswerFds, openAnswer } from "./answer.ts";
import { type Control, quietly } from "./control.ts";
import type { Answer } from "./server_link.ts";

const log = getLogger(["subspace", "client"]);

/** How long the parts of a buffer may take to be registered, from the first question about them on. */
const PATIENCE_MS = 2000;
/** How long to wait after an answer that was not all, and at the most. */
const RETRY_MS = 2;
const RETRY_MS_MAX = 100;

const NOTHING: RegisteredSlots = { slots: new Map(), [Symbol.dispose]() {} };

interface Part {
  readonly metadata: PartMetadata;
  readonly open: () => Fd | null;
}

/** What was asked about a buffer. */
interface Question {
  readonly sinceMs: number;
  answeredMs: number;
  retryMs: number;
  underWay: boolean;
  answer: RegisteredSlots | null;
}

/** The parts of the split buffers of one end of a channel. */
export class ChannelParts implements PartRegistry, Disposable {
  readonly #control: Control;
  readonly #channel: string;
  readonly #counters: ChannelCounters;
  readonly #answered: () => void;
  #made: Part[] = [];
  #warned = false;
  readonly #questions = new Map<number, Question>();
  readonly #waiting: (() => void)[] = [];
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #closed = false;

  /**
   * @param channel The channel's name; the multiplexer's for a virtual channel.
   * @param answered Called when it is worth trying again what `take` had nothing for.
   */
  constructor(control: Control, channel: string, counters: ChannelCounters, answered: () => void) {
    this.#control = control;
    this.#channel = channel;
    this.#counters = counters;
    this.#answered = answered;
  }

  register(metadata: PartMetadata, open: () => Fd | null): void {
    const part = { metadata, open };
    this.#made.push(part);
    this.#tell(part);
  }

  /** Tells a server that took over what its predecessor may not have passed on. What it knows it ignores. */
  registerAgain(): void {
    for (const part of this.#made) this.#tell(part);
  }

  #tell({ metadata, open }: Part): void {
    const what = `register a part of message buffer ${metadata.bufferIndex} of ${this.#channel}`;
    const value = { metadata, hasFd: false };
    this.#control.tell({
      request: { request: { case: "registerClientBuffer", value } },
      attach: () => {
        this.#checkSafety();
        const fd = open();
        value.hasFd = fd !== null;
        return fd;
      },
      repeat: true,
      settle: (outcome) => {
        if (outcome instanceof Error) return log.debug("Cannot {what}: {outcome}", { what, outcome });
        quietly(() => openAnswer(outcome, "registerClientBuffer", what, () => {}));
      },
    });
  }

  /**
   * Throws where the server might not survive being told. The reference's does where no user of the channel has left:
   * one that did, and was not removed first, makes it crash.
   */
  #checkSafety(): void {
    const { numPubUpdates, numPubs, numSubUpdates, numSubs } = this.#counters;
    if (this.#control.session.registersAlways) return;
    if (numPubUpdates === numPubs && numSubUpdates === numSubs) return;
    if (!this.#warned) {
      log.warn(
        "Not registering split buffers of {channel}: users have left it, and the server might crash. They stay in " +
          "/dev/shm when the channel goes",
        { channel: this.#channel },
      );
    }
    this.#warned = true;
    throw new Error("the server might crash");
  }

  unregister(bufferIndex: number): void {
    this.#made = this.#made.filter(({ metadata }) => metadata.bufferIndex !== bufferIndex);
    const value = { channelName: this.#channel, sessionId: this.#control.session.id, bufferIndex };
    this.#control.tell({
      request: { request: { case: "unregisterClientBuffer", value } },
      attach: () => {
        this.#checkSafety();
        return null;
      },
      oneWay: true,
      repeat: false,
      settle: () => {},
    });
  }

  take(bufferIndex: number): RegisteredSlots | null {
    const now = monotonicMs();
    let question = this.#questions.get(bufferIndex);
    if (question?.answer) {
      const { answer } = question;
      question.answer = null;
      return answer;
    }
    if (question?.underWay) return null;
    // After a while it is another question.
    if (question !== undefined && now - question.answeredMs > PATIENCE_MS) question = undefined;
    if (question !== undefined && now - question.sinceMs > PATIENCE_MS) return NOTHING;
    question ??= { sinceMs: now, answeredMs: now, retryMs: 0, underWay: false, answer: null };
    this.#questions.set(bufferIndex, question);
    question.underWay = true;
    if (question.retryMs === 0) this.#ask(bufferIndex, question);
    else this.#later(question.retryMs, () => this.#ask(bufferIndex, question));
    question.retryMs = Math.min(RETRY_MS + 2 * question.retryMs, RETRY_MS_MAX);
    return null;
  }

  #ask(bufferIndex: number, question: Question): void {
    const value = { channelName: this.#channel, sessionId: this.#control.session.id, bufferIndex };
    const what = `learn where message buffer ${bufferIndex} of ${this.#channel} is`;
    const settle = (answer: Answer | null) => {
      question.underWay = false;
      question.answeredMs = monotonicMs();
      if (answer !== null && !this.#closed) {
        quietly(() => {
          question.answer = openAnswer(answer, "getClientBuffers", what, registeredSlots);
        });
      } else if (answer !== null) quietly(() => openAnswer(answer, "getClientBuffers", what, () => {}));
      if (!this.#closed) this.#notify();
    };
    const sent = this.#control.refresh({ request: { case: "getClientBuffers", value } }, settle);
    if (!sent) this.#later(RETRY_MS_MAX, () => settle(null));
  }

  /** Resolves when it is worth trying again, or nothing is to be had any more. */
  answer(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #notify(): void {
    this.#answered();
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #later(delayMs: number, run: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      run();
    }, delayMs);
    this.#timers.add(timer);
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    for (const { answer } of this.#questions.values()) answer?.[Symbol.dispose]();
    this.#questions.clear();
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function registeredSlots({ metadata, fdIndexes }: GetClientBuffersResponse, fds: AnswerFds): RegisteredSlots {
  using cleanup = new DisposableStack();
  const slots = new Map<number, RegisteredSlot>();
  for (const [i, { isPrefix, slotId, handle, allocator, mapOffset }] of metadata.entries()) {
    if (isPrefix || slots.has(slotId)) continue;
    const fd = fdIndexes[i] >= 0 ? cleanup.use(fds.take(fdIndexes[i])) : null;
    const allocated = allocator === ClientBufferAllocator.SPLIT_CALLBACK;
    slots.set(slotId, { handle, fd, mapOffset: Number(mapOffset), allocated });
  }
  const kept = cleanup.move();
  return { slots, [Symbol.dispose]: () => kept.dispose() };
}
