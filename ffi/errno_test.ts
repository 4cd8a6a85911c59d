import assert from "node:assert/strict";
import { check, Errno, errnoMessage, errnoName, SystemError } from "./errno.ts";

Deno.test("error numbers have names and messages, whatever their sign", () => {
  assert.equal(errnoName(2), "ENOENT");
  assert.equal(errnoName(-2), "ENOENT");
  assert.equal(errnoName(4095), "errno 4095");
  assert.equal(errnoMessage(-Errno.ENOSPC), "no space left on device");
  assert.equal(errnoMessage(Errno.EUSERS), "EUSERS");
  assert.equal(errnoMessage(4095), "errno 4095");
});

Deno.test("every name has a number of its own", () => {
  const numbers = Object.values(Errno);
  assert.equal(new Set(numbers).size, numbers.length);
});

Deno.test("a failed call is an error that says what could not be done and why", () => {
  assert.equal(check(0, "x"), 0);
  assert.equal(check(7, "x"), 7);
  assert.throws(() => check(-Errno.EACCES, "open /dev/sda"), (error: unknown) => {
    assert.ok(error instanceof SystemError);
    assert.equal(error.message, "Cannot open /dev/sda: permission denied (EACCES)");
    assert.equal(error.errno, Errno.EACCES);
    assert.equal(error.code, "EACCES");
    return true;
  });
});
