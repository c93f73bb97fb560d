/** The one version number: that of `deno.json`. */

import configuration from "../deno.json" with { type: "json" };

export const version: string = configuration.version;
