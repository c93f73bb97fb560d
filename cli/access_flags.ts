/** Flags that say who may connect: lists of users and groups, by name or number. */

import { groupId, userId } from "../ffi/accounts.ts";
import type { AccessRules } from "../wire/access.ts";
import { flag, FlagError, onOff, type ValueType } from "./flags.ts";

const ACCESS = "Access (root and the same user always have it)";
const ID_MAX = 0xffff_fffe;

/** A user or a group as it was written, and its id. */
export interface Account {
  readonly written: string;
  readonly id: number;
}

function accounts(
  kind: "user" | "group",
  idOf: (name: string) => number | null,
): ValueType<readonly Account[]> {
  return {
    placeholder: `${kind.toUpperCase()},...`,
    expected: `names or ids of ${kind}s with commas between them`,
    parse: (value) =>
      value === "" ? [] : value.split(",").map((written) => ({ written, id: resolve(written) })),
    show: (values) => values.map(({ written }) => written).join(","),
    merge: (earlier, later) => [...earlier, ...later],
  };

  function resolve(written: string): number {
    const id = /^\d+$/.test(written) ? Number(written) : idOf(written);
    if (id !== null && id <= ID_MAX) return id;
    throw new FlagError(`ERROR: There is no ${kind} '${written}' on this machine; an id is fine too`);
  }
}

/** A flag that takes users. It may be repeated. */
export function usersFlag(description: string) {
  return flag({ type: accounts("user", userId), default: [], description, group: ACCESS });
}

/** A flag that takes groups. It may be repeated. */
export function groupsFlag(description: string) {
  return flag({ type: accounts("group", groupId), default: [], description, group: ACCESS });
}

/** A switch that lets everybody in. */
export function anybodyFlag(description: string) {
  return flag({ type: onOff, default: false, description, group: ACCESS });
}

/** What the values of such flags mean. */
export function accessRules(
  users: readonly Account[],
  groups: readonly Account[],
  anybody = false,
): AccessRules {
  return { anybody, users: users.map(({ id }) => id), groups: groups.map(({ id }) => id) };
}
