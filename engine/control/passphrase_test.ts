import assert from "node:assert/strict";
import { Failure } from "./failure.ts";
import { isShort, TypedLine } from "./passphrase.ts";

const encoder = new TextEncoder();

/** The line that comes of these keys. */
function typed(keys: string | Uint8Array): TypedLine {
  const line = new TypedLine();
  for (const byte of typeof keys === "string" ? encoder.encode(keys) : keys) {
    assert.equal(line.type(byte), "more");
  }
  return line;
}

Deno.test("what is typed is the line, and Enter ends it", () => {
  const line = typed("correct horse é😀");
  assert.equal(line.type(0x0d), "done");
  assert.equal(line.type(0x0a), "done");
  assert.equal(line.text(), "correct horse é😀");
});

Deno.test("backspace takes away a whole character, and Ctrl-U all", () => {
  assert.equal(typed("ab\x7f").text(), "a");
  assert.equal(typed("aé\x08").text(), "a");
  assert.equal(typed("a😀\x7fb").text(), "ab");
  assert.equal(typed("\x7f\x7fa").text(), "a");
  assert.equal(typed("wrong\x15right").text(), "right");
});

Deno.test("Ctrl-C interrupts at any time, Ctrl-D where there is nothing", () => {
  assert.equal(new TypedLine().type(3), "interrupted");
  assert.equal(typed("abc").type(3), "interrupted");
  assert.equal(new TypedLine().type(4), "interrupted");
  assert.equal(typed("abc").type(4), "more");
});

Deno.test("a line of a file is text as it is", () => {
  const line = new TypedLine();
  for (const byte of encoder.encode("a b")) assert.equal(line.append(byte), "more");
  assert.equal(line.append(0x0a), "done");
  assert.equal(line.text(), "a b");
  // What would edit a typed line is a mistake in a file.
  for (const control of [0x7f, 0x08, 0x15, 0x03, 0x04, 0x0d, 0x09, 0]) {
    const other = new TypedLine();
    for (const byte of [0x61, control, 0x62]) assert.equal(other.append(byte), "more");
    assert.throws(() => other.text(), /control character/);
  }
});

Deno.test("what can be no passphrase is refused without showing it", () => {
  const refused = (line: TypedLine, message: RegExp) => {
    assert.throws(() => line.text(), (error) => {
      assert.ok(error instanceof Failure && error.exitCode === 2);
      assert.match(error.message, message);
      assert.ok(!error.message.includes("abcd"));
      return true;
    });
  };
  refused(new TypedLine(), /is empty/);
  refused(typed("abcd\x1b[A"), /an arrow key/);
  refused(typed("abcd\t"), /control character/);
  refused(typed("abcd\u0085"), /control character/);
  refused(typed(Uint8Array.of(0x61, 0xff)), /not UTF-8/);
  refused(typed(Uint8Array.of(0x61, 0xc3)), /not UTF-8/);
  refused(typed("abcd".repeat(256) + "x"), /more than 1024 bytes/);
  refused(typed("abcd".repeat(1000)), /more than 1024 bytes/);
  assert.equal(typed("abcd".repeat(256)).text().length, 1024);
});

Deno.test("a line that is wiped is empty", () => {
  const line = typed("abc");
  line.wipe();
  assert.throws(() => line.text(), /is empty/);
});

Deno.test("a passphrase is short below twelve characters, however many bytes they have", () => {
  assert.ok(isShort("elevenchars"));
  assert.ok(!isShort("twelve chars"));
  assert.ok(isShort("éééééé"));
  // Composed, these are six.
  assert.ok(isShort("e\u0301".repeat(6)));
  assert.ok(!isShort("😀".repeat(12)));
});
