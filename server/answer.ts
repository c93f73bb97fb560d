/** What a request is answered with. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Fd } from "../ffi/fd.ts";
import type { ResponseSchema } from "../proto/subspace_pb.ts";
import type { User } from "./users.ts";

/** A response and its fds, which are borrowed: to be sent before anything else happens. */
export interface Answer {
  readonly response: NonNullable<MessageInitShape<typeof ResponseSchema>["response"]>;
  readonly fds: readonly Fd[];
}

/** The fds of a response, in order: what is added is known by its index. */
export class FdList {
  readonly fds: Fd[];

  constructor(...fds: Fd[]) {
    this.fds = fds;
  }

  add(fd: Fd): number {
    return this.fds.push(fd) - 1;
  }

  /** The eventfds by which users are woken. */
  addTriggers(users: readonly User[]): number[] {
    return users.map(({ record }) => this.add(record.trigger));
  }

  addAll(fds: Iterable<Fd>): number[] {
    return Array.from(fds, (fd) => this.add(fd));
  }
}
