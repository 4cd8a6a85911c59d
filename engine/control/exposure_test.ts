import assert from "node:assert/strict";
import { parseHostPort, parseNbdAddress } from "./address.ts";
import { checkExposure } from "./exposure.ts";

function check(listen: string | null, nbd: string | null, keys: number, insecure = false): Promise<string[]> {
  return checkExposure({
    listen: listen === null ? null : parseHostPort(listen),
    nbd: nbd === null ? null : parseNbdAddress(nbd),
    keys: new Array(keys).fill(null),
    insecure,
  });
}

Deno.test("without a key only this machine is served, however its address is written", async () => {
  for (const listen of ["127.0.0.1", "127.1.2.3:1", "::1", "[::1]:7700", "::ffff:127.0.0.1", "localhost"]) {
    assert.deepEqual(await check(listen, null, 0), []);
  }
  for (const listen of ["0.0.0.0", "192.0.2.1:7700", "::", "[2001:db8::1]:1", "::ffff:192.0.2.1", "128.0.0.1"]) {
    await assert.rejects(check(listen, null, 0), {
      name: "Failure",
      exitCode: 2,
      message: /^Refused to serve on .*:\d+ without a key: .* --key FILE .*--insecure/,
    });
    assert.deepEqual(await check(listen, null, 1), []);
    assert.deepEqual(await check(listen, null, 1, true), []);
    const [insisted] = await check(listen, null, 0, true);
    assert.match(insisted, /^Serving on .*:\d+ without a key: any machine/);
  }
});

Deno.test("NBD has no keys, and so serves this machine only", async () => {
  for (const nbd of ["127.0.0.1", "[::1]:10809", "unix:/run/disk.sock"]) await check("127.0.0.1", nbd, 0);
  assert.deepEqual(await check(null, "unix:/run/disk.sock", 0), []);
  await assert.rejects(check(null, "0.0.0.0", 0), /^Failure: Refused to serve NBD on 0\.0\.0\.0:10809/);
  for (const keys of [0, 1]) {
    await assert.rejects(check("127.0.0.1", "0.0.0.0", keys), {
      exitCode: 2,
      message: /^Refused to serve NBD on 0\.0\.0\.0:10809: NBD has no keys/,
    });
    const [insisted] = await check("127.0.0.1", "0.0.0.0", keys, true);
    assert.match(insisted, /^Serving NBD on 0\.0\.0\.0:10809, which has no keys/);
  }
});
