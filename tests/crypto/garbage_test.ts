/**
 * Guards make no garbage: over a million seals of a warmed-up guard, and as many that are opened, V8 has nothing to
 * scavenge.
 *
 * @module
 */
import assert from "node:assert/strict";
import { runs } from "../../engine/guard_support_test.ts";

const WORK = new URL("guard_work.ts", import.meta.url).pathname;
const WARM_UP_FRAMES = 100_000;
/** Each is a payload and a header: a million seals. */
const FRAMES = 500_000;

for (const { name, choice, suite, ignore } of runs.filter((run) => run.suite.keyed)) {
  Deno.test({
    name: `${name}: a million seals leave no garbage`,
    ignore,
    async fn() {
      const work = [WORK, choice, suite.cipher, suite.digest, WARM_UP_FRAMES, FRAMES].map(String);
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--quiet", "-A", "--v8-flags=--trace-gc", ...work],
        env: { NO_COLOR: "1" },
        stdin: "null",
      }).output();
      const [output, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
      assert.ok(success, errors);
      const [fromMs, untilMs] = /frames from ([\d.]+) until ([\d.]+) ms/.exec(output)!.slice(1).map(Number);
      const collections = [...output.matchAll(/^\[\d+:0x[0-9a-f]+(?::\d+)?\]\s+(\d+) ms: (.*)$/gm)];
      assert.ok(collections.length > 0, "collections are reported");
      const among = collections.filter(([, ms]) => Number(ms) >= fromMs && Number(ms) <= untilMs);
      assert.deepEqual(among.map(([line]) => line), []);
    },
  });
}
