import assert from "node:assert/strict";
import { Errno, errnoOfStatus, Status, statusName, statusOfErrno } from "./status.ts";

Deno.test("every errno that a disk can give becomes its status, and all others IO", () => {
  const table: [number, number][] = [
    [0, Status.OK],
    [-Errno.EIO, Status.IO],
    [-Errno.ENOSPC, Status.NO_SPACE],
    [-Errno.EDQUOT, Status.NO_SPACE],
    [-Errno.EFBIG, Status.NO_SPACE],
    [-Errno.EINVAL, Status.INVALID],
    [-Errno.EROFS, Status.READ_ONLY],
    [-Errno.EPERM, Status.READ_ONLY],
    [-Errno.EOPNOTSUPP, Status.NOT_SUPPORTED],
    [-Errno.ENOMEM, Status.NO_MEMORY],
    [-Errno.ETIMEDOUT, Status.TIMED_OUT],
    [-Errno.ESHUTDOWN, Status.SHUTTING_DOWN],
    [-Errno.ENODATA, Status.MEDIUM],
    [-Errno.EILSEQ, Status.PROTECTION],
  ];
  for (const [errno, status] of table) assert.equal(statusOfErrno(errno), status, `errno ${errno}`);
  const named = new Set(table.map(([errno]) => errno));
  for (let errno = -4096; errno < 0; errno++) {
    if (!named.has(errno)) assert.equal(statusOfErrno(errno), Status.IO, `errno ${errno}`);
  }
});

Deno.test("every status of the specification has its errno, and unknown ones count as IO", () => {
  const expected: Record<string, number> = {
    OK: 0,
    IO: 5,
    NO_SPACE: 28,
    INVALID: 22,
    READ_ONLY: 30,
    NOT_SUPPORTED: 95,
    NO_MEMORY: 12,
    TIMED_OUT: 110,
    OUT_OF_RANGE: 22,
    SHUTTING_DOWN: 108,
    MEDIUM: 61,
    PROTECTION: 84,
    NOT_FOUND: 2,
    DENIED: 13,
    BUSY: 16,
    NO_SESSION: 107,
    EPOCH_CHANGED: 116,
    STORAGE_CHANGED: 116,
    NO_RESOURCES: 12,
    OLD_GENERATION: 116,
    SESSION_EXISTS: 17,
    BAD_REQUEST: 71,
    UNKNOWN_REQUIRED: 71,
    VERSION: 71,
    NO_COMMON_ALGORITHM: 71,
    KEY_REQUIRED: 13,
    TOO_MANY: 24,
  };
  for (const [name, status] of Object.entries(Status)) {
    assert.equal(errnoOfStatus(status, false), 0 - expected[name], name);
    assert.equal(statusName(status), name);
  }
  for (const status of [12, 31, 47, 63, 64, 0xffff_ffff]) assert.equal(errnoOfStatus(status, false), -Errno.EIO);
  assert.equal(statusName(47), "status 47");
});

Deno.test("a mutation beyond the end is out of space, and only that differs for mutations", () => {
  assert.equal(errnoOfStatus(Status.OUT_OF_RANGE, true), -Errno.ENOSPC);
  for (const status of Object.values(Status)) {
    if (status !== Status.OUT_OF_RANGE) assert.equal(errnoOfStatus(status, true), errnoOfStatus(status, false));
  }
});

Deno.test("what has a status of its own survives the way to the client", () => {
  for (const errno of [5, 28, 22, 30, 95, 12, 110, 108, 61, 84]) {
    assert.equal(errnoOfStatus(statusOfErrno(-errno), false), -errno);
  }
});
