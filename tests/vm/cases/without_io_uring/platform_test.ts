/**
 * The kernel whose io_uring is switched off: what the cases of this folder stand on.
 *
 * @module
 */
import assert from "node:assert/strict";
import { shell, sysctl } from "../../guest_tools.ts";

Deno.test("io_uring is switched off for every process, root's too", async () => {
  assert.equal(await sysctl("kernel.io_uring_disabled"), "2");
  const fio = await shell("fio --name=x --ioengine=io_uring --filename=/dev/ram0 --size=4k --rw=read 2>&1 || true");
  assert.match(fio.stdout, /Operation not permitted/);
});
