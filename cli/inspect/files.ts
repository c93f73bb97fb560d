/** Files that verbs are given, with one clear line for each way in which that can fail. */

/** A file that cannot be used. The message says why, and what to do. */
export class FileError extends Error {
  override readonly name = "FileError";
}

/**
 * Reads a whole file.
 *
 * @throws {FileError} If it cannot be read.
 */
export function readBytes(path: string): Uint8Array<ArrayBuffer> {
  return trying(`read ${path}`, "read", path, () => Deno.readFileSync(path));
}

/**
 * Opens a file to read.
 *
 * @throws {FileError} If it cannot be read.
 */
export function openFile(path: string): Deno.FsFile {
  return trying(`read ${path}`, "read", path, () => {
    const file = Deno.openSync(path);
    if (file.statSync().isFile) return file;
    file.close();
    throw new Error("it is no file");
  });
}

/**
 * Opens a file to write: what was in it is gone.
 *
 * @throws {FileError} If it cannot be written.
 */
export function createFile(path: string): Deno.FsFile {
  return trying(
    `write ${path}`,
    "write",
    path,
    () => Deno.openSync(path, { write: true, create: true, truncate: true }),
  );
}

function trying<T>(what: string, permission: "read" | "write", path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new FileError(`Cannot ${what}: ${reasonOf(error, permission, path)}`);
  }
}

function reasonOf(error: unknown, permission: "read" | "write", path: string): string {
  if (error instanceof Deno.errors.NotCapable) {
    return `this program was started without --allow-${permission}; give it --allow-${permission}=${path}`;
  }
  if (error instanceof Deno.errors.NotFound) return "there is no such file or folder";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  return error instanceof Error ? error.message : String(error);
}
