import assert from "node:assert/strict";
import { PATIENCE } from "./patience.ts";
import { changedPatience, shownPatience } from "./settings.ts";

Deno.test("patience is shown as JSON, which has no infinity, and read from it again", () => {
  const patience = { ...PATIENCE, resends: Infinity };
  const shown = JSON.parse(JSON.stringify(shownPatience(patience)));
  assert.deepEqual(shown, {
    resendIntervalMs: 5000,
    resends: "forever",
    connectTimeoutMs: 5000,
    pingIntervalMs: 1000,
    deadAfterMs: 15_000,
  });
  assert.deepEqual(changedPatience(shown, PATIENCE), patience);
});

Deno.test("what is not asked for stays as it is", () => {
  assert.deepEqual(changedPatience({}, PATIENCE), PATIENCE);
  assert.deepEqual(changedPatience(shownPatience({ resends: 3 }), PATIENCE), { ...PATIENCE, resends: 3 });
  assert.deepEqual(changedPatience({ deadAfterMs: 1001 }, PATIENCE), { ...PATIENCE, deadMs: 1001 });
});

Deno.test("what makes no sense is refused with what is wrong, also where it only does not go with the rest", () => {
  const rows: [asked: unknown, message: RegExp][] = [
    [null, /^Cannot set that: expected an object$/],
    [undefined, /^Cannot set that/],
    ["x", /^Cannot set that/],
    [{ resends: 0 }, /^Cannot set resends: expected a whole number/],
    [{ resends: "never" }, /^Cannot set resends: expected a whole number from 1 to 1000000, or "forever"$/],
    [{ resendIntervalMs: 0 }, /^Cannot set resendIntervalMs: expected a whole number from 1 to 86400000$/],
    [{ connectTimeoutMs: 1.5 }, /^Cannot set connectTimeoutMs/],
    [{ lanes: 4 }, /^Cannot set lanes/],
    [{ deadAfterMs: 1000 }, /^Nothing is set: a connection that is given up after 1\.0 s/],
    [{ pingIntervalMs: 15_000 }, /^Nothing is set: /],
  ];
  for (const [asked, message] of rows) {
    assert.throws(() => changedPatience(asked, PATIENCE), { message }, JSON.stringify(asked));
  }
});
