/** What the reference's programs leave behind when they are killed (specification, sections 4.8 and 8.3). */

/** Removes all files of a session: message buffers, descriptions of split buffers, and the empty files beside them. */
export function removeTraces(sessionId: bigint): void {
  const short = (sessionId & 0xffff_ffffn).toString(16).padStart(8, "0");
  for (const folder of ["/dev/shm", "/tmp"]) {
    for (const { name } of Deno.readDirSync(folder)) {
      const its = name.startsWith(`subspace_${sessionId}_`) ||
        new RegExp(`^${short}\\.\\d+\\.[scb]cb\\.`).test(name);
      if (its) Deno.removeSync(`${folder}/${name}`);
    }
  }
}
