/**
 * Self-extracting executables: a shell script, and behind it a compressed program and the runtime for it.
 *
 * Invariants of what they unpack: a file is put in its place whole, verified, and by renaming, so that any number may
 * start at once; it lies in a folder of the user's own that nobody else may enter; its name has its checksum, so that
 * it is unpacked once, and by versions side by side.
 */

/** What an executable is made of. */
export interface Parts {
  readonly name: string;
  readonly version: string;
  /** The machine that it is for: `x86_64-unknown-linux-gnu`. */
  readonly target: string;
  /** What the runtime is told: `--allow-ffi`. */
  readonly flags: readonly string[];
  /** One JavaScript file with everything in it. */
  readonly program: Packed;
  readonly runtime: Packed;
}

/** A file, compressed. */
export interface Packed {
  readonly gzip: Uint8Array<ArrayBuffer>;
  /** Of the file itself, in hex. */
  readonly sha256: string;
}

/** Packs a file. */
export async function pack(bytes: Uint8Array<ArrayBuffer>): Promise<Packed> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return { gzip: new Uint8Array(await new Response(stream).arrayBuffer()), sha256: await sha256(bytes) };
}

/** A checksum in hex, as `sha256sum` prints it. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return new Uint8Array(digest).toHex();
}

/** The header is padded to so many bytes, so that it can say where the payload begins. */
const HEADER_BYTES = 4096;

/** The bytes of an executable. */
export function selfExtracting(parts: Parts): Uint8Array<ArrayBuffer> {
  const text = header(parts);
  if (text.length > HEADER_BYTES) throw new Error(`Cannot make a header of ${text.length} bytes`);
  const { program, runtime } = parts;
  const bytes = new Uint8Array(HEADER_BYTES + program.gzip.length + runtime.gzip.length);
  bytes.fill("\n".charCodeAt(0), 0, HEADER_BYTES);
  bytes.set(new TextEncoder().encode(text));
  bytes.set(program.gzip, HEADER_BYTES);
  bytes.set(runtime.gzip, HEADER_BYTES + program.gzip.length);
  return bytes;
}

/** Needs `/bin/sh`, and to unpack coreutils and gzip, or busybox, in the usual places: PATH may be empty. */
function header({ name, version, target, flags, program, runtime }: Parts): string {
  return `#!/bin/sh
# ${name} ${version} for ${target}: unpacks itself once into a private folder, and runs from there; no network.
program=${program.sha256}
runtime=${runtime.sha256}
last=
dir=

# Finds the first folder for which a step succeeds.
try() {
  for dir in "\${SUBSPACE_CACHE:-}" "\${XDG_CACHE_HOME:+$XDG_CACHE_HOME/subspace}" \\
    "\${HOME:+$HOME/.cache/subspace}" "\${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/subspace}" "$last"; do
    [ -n "$dir" ] && "$1" && return 0
  done
  return 1
}
own() { [ -d "$dir" ] && [ ! -L "$dir" ] && [ -O "$dir" ]; }
unpacked() { own && [ -x "$dir/$runtime" ] && [ -r "$dir/$program.js" ]; }

start() {
  DENO_DIR=$dir/deno DENO_NO_UPDATE_CHECK=1 DENO_NO_PACKAGE_JSON=1
  export DENO_DIR DENO_NO_UPDATE_CHECK DENO_NO_PACKAGE_JSON
  exec "$dir/$runtime" run --quiet --no-prompt --no-config --no-lock --no-remote --no-npm \\
    ${flags.join(" ")} \\
    "$dir/$program.js" "$@"
}

# Skips so many bytes, takes so many, checks them, puts them in their place.
unpack_part() {
  [ -e "$4" ] && return 0
  tail -c "+$(($1 + 1))" "$self" 2>/dev/null | head -c "$2" | gzip -dc 2>/dev/null >"$new/part"
  sum=$(sha256sum <"$new/part")
  [ "\${sum%% *}" = "$3" ] || { wrong="it is damaged (download it again), or there is no room in $dir"; return 1; }
  chmod 500 "$new/part" && { sync "$new/part" 2>/dev/null || :; } && mv -f "$new/part" "$4"
}
unpack() {
  mkdir -p "$dir" 2>/dev/null
  own && [ -w "$dir" ] && chmod 700 "$dir" || return 1
  new=$dir/.new.$$
  rm -rf "$new"
  mkdir "$new" || return 1
  unpack_part ${HEADER_BYTES} ${program.gzip.length} $program "$dir/$program.js" &&
    unpack_part ${HEADER_BYTES + program.gzip.length} ${runtime.gzip.length} $runtime "$dir/$runtime"
  done=$?
  rm -rf "$new"
  [ $done -eq 0 ] || return 1
  "$dir/$runtime" --version >/dev/null 2>&1 && return 0
  wrong="$dir/$runtime does not run: the folder is mounted noexec, or this is not ${target}"
  return 1
}
fail() {
  echo "Cannot start ${name}: $1" >&2
  exit 1
}

umask 077
try unpacked && start "$@"
path=\${PATH-} self=$0 new=
PATH=$path:/usr/bin:/bin:/usr/local/bin
last=/tmp/subspace-$(id -u)
if ! try unpacked; then
  for tool in chmod gzip head mkdir mv rm sha256sum tail; do
    command -v $tool >/dev/null || fail "it needs '$tool' to unpack itself: install coreutils and gzip, or busybox"
  done
  trap 'rm -rf "$new"; exit 1' HUP INT TERM
  wrong="there is no folder to unpack to: name one of yours in SUBSPACE_CACHE"
  try unpack || fail "$wrong"
  trap - HUP INT TERM
fi
PATH=$path
start "$@"
`;
}
