/** Does nothing, to see what that costs. */

console.log("ready");
await new Promise((resolve) => setTimeout(resolve, 60_000));
