import assert from "node:assert/strict";
import { Failure } from "./failure.ts";
import { checkKeyName, type Key, keyFromPassphrase, keyIdOf, makeKey, readKeyFile, writeKeyFile } from "./key_file.ts";

interface FileVector {
  readonly name: string;
  readonly key: string;
  readonly id: string;
  readonly file: string;
}

interface PassphraseVector {
  readonly name: string;
  readonly passphrase: string;
  readonly key: string;
  readonly id: string;
}

function vectors<T>(name: string): T[] {
  return JSON.parse(Deno.readTextFileSync(new URL(`../../tests/vectors/${name}`, import.meta.url))).vectors;
}

/** Calls a function with a path in a folder of its own. */
function withPath(work: (path: string) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "dst-key-" });
  try {
    work(`${folder}/test.key`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function withFile(content: string | Uint8Array, work: (path: string) => void, mode = 0o600): void {
  withPath((path) => {
    Deno.writeFileSync(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    Deno.chmodSync(path, mode);
    work(path);
  });
}

function refusalOf(path: string): string {
  try {
    readKeyFile(path);
  } catch (error) {
    assert.ok(error instanceof Failure, String(error));
    assert.ok(error.message.startsWith(`Cannot use the key file ${path}: `), error.message);
    return error.message.slice(error.message.indexOf(path) + path.length + 2);
  }
  throw new Error("the file was taken");
}

const [EXAMPLE] = vectors<FileVector>("keyfile.json");
const EXAMPLE_TEXT = new TextDecoder().decode(Uint8Array.fromHex(EXAMPLE.file));

Deno.test("key files are written and read to the byte as SPEC.md has them", () => {
  for (const { name, key, id, file } of vectors<FileVector>("keyfile.json")) {
    const secret = Uint8Array.fromHex(key);
    assert.equal(keyIdOf(secret).toHex(), id);
    withPath((path) => {
      writeKeyFile(path, { name, id: Uint8Array.fromHex(id), secret });
      assert.equal(Deno.readFileSync(path).toHex(), file);
      assert.equal(Deno.statSync(path).mode! & 0o7777, 0o600);
      const read = readKeyFile(path);
      assert.deepEqual([read.name, read.id.toHex(), read.secret.toHex()], [name, id, key]);
    });
  }
});

Deno.test("a passphrase gives the key that SPEC.md has for it, however its letters are composed", async () => {
  for (const { name, passphrase, key, id } of vectors<PassphraseVector>("passphrase.json")) {
    const text = new TextDecoder().decode(Uint8Array.fromHex(passphrase));
    const found = await keyFromPassphrase(name, text);
    assert.deepEqual([found.name, found.secret.toHex(), found.id.toHex()], [name, key, id]);
  }
});

Deno.test("a passphrase is text, and there is one", async () => {
  await assert.rejects(keyFromPassphrase("nas", ""), /must not be empty/);
  await assert.rejects(keyFromPassphrase("nas", "half a pair \ud83d"), /not proper Unicode/);
  await assert.rejects(keyFromPassphrase("n s", "correct horse"), /The name of a key/);
});

Deno.test("every new key is another", () => {
  const keys = Array.from({ length: 20 }, () => makeKey("a"));
  assert.equal(new Set(keys.map(({ secret }) => secret.toHex())).size, 20);
  for (const { id, secret } of keys) assert.equal(id.toHex(), keyIdOf(secret).toHex());
  assert.throws(() => makeKey("a/b"), /The name of a key/);
});

Deno.test("a key's name has 1 to 64 plain characters", () => {
  for (const name of ["a", "Z.9_-", "x".repeat(64)]) assert.equal(checkKeyName(name), name);
  for (const name of ["", "x".repeat(65), "a b", "a/b", "é", "a\n"]) {
    assert.throws(() => checkKeyName(name), RangeError);
  }
});

Deno.test("a key file that others may use in any way is refused", () => {
  for (const mode of [0o604, 0o640, 0o620, 0o601, 0o610, 0o602, 0o644, 0o777]) {
    withFile(EXAMPLE_TEXT, (path) => {
      const text = mode.toString(8).padStart(4, "0");
      assert.equal(refusalOf(path), `others may use it too (mode ${text}): run chmod 600 ${path}`);
    }, mode);
  }
  for (const mode of [0o600, 0o400, 0o700]) {
    withFile(EXAMPLE_TEXT, (path) => assert.equal(readKeyFile(path).id.toHex(), EXAMPLE.id), mode);
  }
});

Deno.test({
  name: "a key file of somebody else is refused",
  ignore: Deno.uid() !== 0,
  fn: () =>
    withFile(EXAMPLE_TEXT, (path) => {
      Deno.chownSync(path, 12345, null);
      assert.equal(refusalOf(path), "it belongs to somebody else (user 12345)");
    }),
});

Deno.test("what is no regular file, or not there, is refused at once", () => {
  withPath((path) => {
    assert.equal(refusalOf(path), "there is no such file (dst keygen makes one)");
    assert.equal(refusalOf(`${path}/x/y`), "there is no such file (dst keygen makes one)");
    Deno.mkdirSync(path);
    assert.equal(refusalOf(path), "it is not a regular file");
    const pipe = `${path}/pipe`;
    assert.ok(new Deno.Command("mkfifo", { args: ["-m", "600", pipe] }).outputSync().success);
    assert.equal(refusalOf(pipe), "it is not a regular file");
  });
  assert.equal(refusalOf("/dev/null"), "it is not a regular file");
});

Deno.test("a key file is refused with the line that is wrong, and nothing of what is in it", () => {
  const [one, two, three, four] = EXAMPLE_TEXT.split("\n");
  const name = 'line 2 is not "name: " and 1 to 64 characters of A-Z a-z 0-9 . _ -';
  const id = 'line 3 is not "id: " and 32 hexadecimal digits';
  const key = 'line 4 is not "key: " and 64 hexadecimal digits';
  const lines = (...all: string[]) => all.map((line) => `${line}\n`).join("");
  const cases: [content: string, reason: string | RegExp][] = [
    ["", "it is empty"],
    [EXAMPLE_TEXT.slice(0, -1), "line 4 does not end with a newline: the file is not whole"],
    [EXAMPLE_TEXT.slice(0, 20), "line 2 does not end with a newline: the file is not whole"],
    [lines("DST-KEY 2", two, three, four), /^line 1 is not "DST-KEY 1"/],
    [EXAMPLE_TEXT.replaceAll("\n", "\r\n"), /^line 1 is not/],
    [`\ufeff${EXAMPLE_TEXT}`, /^line 1 is not/],
    [lines(one), "its lines are 1 and not four: it is not whole, or more than a key"],
    [lines(one, two, three, four, ""), "its lines are 5 and not four: it is not whole, or more than a key"],
    [lines(one, "name:backup-2", three, four), name],
    [lines(one, "name: ", three, four), name],
    [lines(one, "name: a b", three, four), name],
    [lines(one, three, two, four), name],
    [lines(one, two, `${three} `, four), id],
    [lines(one, two, three.slice(0, -1), four), id],
    [lines(one, two, three.replace("id", "iD"), four), id],
    [lines(one, two, three, four.slice(0, -1)), key],
    [lines(one, two, three, `${four}0`), key],
    [lines(one, two, three, `${four.slice(0, -1)}g`), key],
    [lines(one, two, three, `${four.slice(0, -2)}é`), key],
    [lines(one, two, three, `${four.slice(0, -1)}${four.endsWith("0") ? 1 : 0}`), /^the id .* does not fit the key/],
    [EXAMPLE_TEXT + EXAMPLE_TEXT, "it has more than 188 bytes, so it is no key file"],
  ];
  for (const [content, reason] of cases) {
    withFile(content, (path) => {
      const found = refusalOf(path);
      if (typeof reason === "string") assert.equal(found, reason);
      else assert.match(found, reason);
      assert.ok(!found.includes(EXAMPLE.key.slice(0, 8)) && !found.includes(EXAMPLE.id.slice(0, 8)), found);
    });
  }
});

Deno.test("hexadecimal digits may be capitals", () => {
  const [one, two, three, four] = EXAMPLE_TEXT.split("\n");
  const content = [one, two, `id: ${three.slice(4).toUpperCase()}`, `key: ${four.slice(5).toUpperCase()}`, ""].join(
    "\n",
  );
  withFile(content, (path) => assert.equal(readKeyFile(path).secret.toHex(), EXAMPLE.key));
});

Deno.test("what is there already is never overwritten, not even through a link", () => {
  const key = makeKey("a");
  withFile("mine", (path) => {
    assert.throws(() => writeKeyFile(path, key), /a key is never overwritten/);
    assert.equal(Deno.readTextFileSync(path), "mine");
    const link = `${path}.link`;
    Deno.symlinkSync(`${path}.elsewhere`, link);
    assert.throws(() => writeKeyFile(link, key), /a key is never overwritten/);
    assert.throws(() => Deno.lstatSync(`${path}.elsewhere`), Deno.errors.NotFound);
  });
});

Deno.test("a key file that cannot be written is a failure that says why", () => {
  withPath((path) => assert.throws(() => writeKeyFile(`${path}/x`, makeKey("a")), /there is no such folder/));
  assert.throws(() => writeKeyFile("/proc/x.key", makeKey("a")), Failure);
});

Deno.test("the umask can take rights away from a key file and not give any", () => {
  const before = Deno.umask(0);
  try {
    withPath((path) => {
      writeKeyFile(path, makeKey("a"));
      assert.equal(Deno.statSync(path).mode! & 0o7777, 0o600);
    });
  } finally {
    Deno.umask(before);
  }
});

Deno.test("writing a key leaves it as it is", () => {
  const key: Key = makeKey("a");
  const before = key.secret.toHex();
  withPath((path) => {
    writeKeyFile(path, key);
    assert.equal(key.secret.toHex(), before);
    assert.equal(readKeyFile(path).secret.toHex(), before);
  });
});
