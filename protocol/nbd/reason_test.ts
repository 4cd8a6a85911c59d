import assert from "node:assert/strict";
import { Reason, reasonError, reasonOfStatus, reasonText } from "./reason.ts";
import { NbdError } from "./wire.ts";

/** The error value on the wire for an errno. */
function errorOf(errno: number, fastZero = false): number {
  return reasonError(reasonOfStatus(-errno, fastZero));
}

Deno.test("each errno of the disk has its error on the wire", () => {
  const table: [errno: number, error: number][] = [
    [0, 0],
    [1, NbdError.EPERM],
    [5, NbdError.EIO],
    [12, NbdError.ENOMEM],
    [13, NbdError.EPERM],
    [22, NbdError.EINVAL],
    [27, NbdError.ENOSPC],
    [28, NbdError.ENOSPC],
    [30, NbdError.EPERM],
    [75, NbdError.EOVERFLOW],
    [108, NbdError.ESHUTDOWN],
    [110, NbdError.EIO],
    [122, NbdError.ENOSPC],
    [4095, NbdError.EIO],
  ];
  for (const [errno, error] of table) assert.equal(errorOf(errno), error, `errno ${errno}`);
});

Deno.test("ENOTSUP is only for a fast WRITE_ZEROES", () => {
  assert.equal(errorOf(95, true), NbdError.ENOTSUP);
  assert.equal(errorOf(95, false), NbdError.EINVAL);
  assert.equal(errorOf(5, true), NbdError.EIO);
});

Deno.test("a status that is no errno is an input/output error", () => {
  for (const status of [7, NaN, -Infinity, -1e9]) {
    assert.equal(reasonOfStatus(status, false), Reason.IO_ERROR, String(status));
  }
});

Deno.test("every failure has a text", () => {
  for (const reason of Object.values(Reason)) assert.equal(reasonText(reason).length > 0, reason !== Reason.NONE);
});
