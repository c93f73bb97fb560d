/** Reading directories, without any permission of the runtime's. */

import { SystemError } from "./errno.ts";
import { cstring, errno, rareLibc } from "./libc.ts";

/** `d_name` in `struct dirent`. */
const NAME_OFFSET = 19;

/**
 * The names of all entries of a directory but itself and its parent.
 *
 * @throws {SystemError} If it cannot be read.
 */
export function listDirectory(path: string): string[] {
  const directory = rareLibc().opendir(cstring(path));
  if (directory === null) throw new SystemError(`read directory ${path}`, errno());
  const names: string[] = [];
  for (let entry = rareLibc().readdir(directory); entry !== null; entry = rareLibc().readdir(directory)) {
    names.push(Deno.UnsafePointerView.getCString(entry, NAME_OFFSET));
  }
  rareLibc().closedir(directory);
  return names.filter((name) => name !== "." && name !== "..");
}
