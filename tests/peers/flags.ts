/** The flags of the test clients, `--name=value`, as the reference's `pub` and `sub` take them. */
export function parseFlags(args: readonly string[]): (name: string, missing: string) => string {
  const given = new Map(args.map((arg) => {
    const [name, value = "true"] = arg.replace(/^--/, "").split("=");
    return [name, value];
  }));
  return (name, missing) => given.get(name) ?? missing;
}
