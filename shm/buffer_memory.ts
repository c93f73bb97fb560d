/** What a message buffer is made of: one mapping with prefixes and payloads, or many (specification, sections 4.7, 4.8). */

import type { ControlBlocks } from "./control_blocks.ts";

/** Which buffers, and how they are mapped. */
export interface BufferOptions {
  readonly sessionId: bigint;
  /** The channel's name; the multiplexer's for a virtual channel. */
  readonly resolvedName: string;
  readonly blocks: ControlBlocks;
  /** Room for a checksum, and for metadata, in the prefix of each payload. */
  readonly checksumBytes: number;
  readonly metadataBytes: number;
  readonly writable: boolean;
  /** Who owns the buffers made, where this process may say so. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
}

/** Where the prefix of a slot begins. */
export interface PrefixPlace {
  readonly memory: ArrayBuffer;
  readonly start: number;
}

/** The memory of one message buffer, mapped. */
export interface BufferMemory {
  /** Bytes that a payload may have: a multiple of 64. */
  readonly slotBytes: number;
  /** A new view of a slot's payload area. */
  payload(slotId: number): Uint8Array<ArrayBuffer>;
  prefix(slotId: number): PrefixPlace;
  /** What a user's allocator calls the memory of a slot; null where none made it. */
  handle(slotId: number): bigint | null;
  /** Where a slot's payload is in the arena, mapped there on first use; null where it cannot be. */
  address(slotId: number): number | null;
  /** Whether it stays mapped until its channel's end is closed. */
  readonly stays: boolean;
  /** Takes the memory from under all views, which are empty then. */
  unmap(): void;
}

/** Where message buffers come from. */
export interface BufferSource {
  /** What a buffer is called, for people. */
  nameOf(index: number): string;
  /** Makes a buffer; null where there is one. */
  create(index: number, slotBytes: number): BufferMemory | null;
  /**
   * Maps a buffer that another has made; null where there is none, or not yet.
   *
   * @param patient Whether to wait a moment for one that is just being made.
   * @throws {ControlBlockError} If it is not what the channel's buffers are.
   */
  open(index: number, patient: boolean): BufferMemory | null;
  /** Whether a buffer could not be mapped as the server was asked about it first. */
  readonly asking: boolean;
}

/** Modes of what others are to use too. */
export const BUFFER_MODE = 0o777;
/** How often, and how long each time, to wait for another publisher that has made a buffer and not yet its length. */
export const LENGTH_TRIES = 50;
export const LENGTH_WAIT_MS = 1;
