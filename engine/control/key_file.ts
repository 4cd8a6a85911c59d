/**
 * Keys and key files (SPEC.md, 4.4).
 *
 * @module
 */
import { argon2id, createBLAKE2b } from "hash-wasm";
import { Failure, messageOf, usageFailure } from "./failure.ts";
import { removeIfThere } from "./runtime.ts";

/** Bytes of a key's secret. */
export const SECRET_BYTES = 32;
/** Bytes of a key's id. */
export const KEY_ID_BYTES = 16;

/** A pre-shared key. */
export interface Key {
  /** 1 to 64 of `A-Z a-z 0-9 . _ -`. */
  readonly name: string;
  /** {@link KEY_ID_BYTES}: names the key on the wire, and says nothing about the secret. */
  readonly id: Uint8Array<ArrayBuffer>;
  /** {@link SECRET_BYTES}. */
  readonly secret: Uint8Array<ArrayBuffer>;
}

const NAME = /^[A-Za-z0-9._-]{1,64}$/;
/** The parameters of Argon2id that SPEC.md 4.4 fixes, so that both machines derive the same key. */
const ARGON2ID = { memorySize: 65536, iterations: 3, parallelism: 1 } as const;
const SALT_BYTES = 16;

const FIRST_LINE = "DST-KEY 1";
/** The four lines with the longest name. */
const FILE_BYTES_MAX = `${FIRST_LINE}\nname: \nid: \nkey: \n`.length + 64 + 2 * KEY_ID_BYTES + 2 * SECRET_BYTES;
const LINE_FEED = 10;

/** One for all, made when the module is loaded: reading a key file has nothing to wait for then. */
const blake2b = await createBLAKE2b(256);
const encoder = new TextEncoder();

/**
 * Gives the name back if it can name a key.
 *
 * @throws {RangeError} when it cannot
 */
export function checkKeyName(name: string): string {
  if (NAME.test(name)) return name;
  throw new RangeError(`The name of a key has 1 to 64 characters of A-Z a-z 0-9 . _ - and no others, not "${name}"`);
}

/** The id of the key with this secret. */
export function keyIdOf(secret: Uint8Array): Uint8Array<ArrayBuffer> {
  return blake2b256("DST1 key id", secret).slice(0, KEY_ID_BYTES);
}

/**
 * A new key.
 *
 * @throws {RangeError} when nothing can have that name
 */
export function makeKey(name: string): Key {
  checkKeyName(name);
  const secret = crypto.getRandomValues(new Uint8Array(SECRET_BYTES));
  return { name, id: keyIdOf(secret), secret };
}

/**
 * The key that the name and the passphrase stand for, the same on every machine. It takes a quarter of a second and
 * 64 MiB, so that guessing passphrases takes long.
 *
 * @throws {RangeError} when nothing can have that name, or the passphrase is empty or no text
 */
export async function keyFromPassphrase(name: string, passphrase: string): Promise<Key> {
  checkKeyName(name);
  if (passphrase === "") throw new RangeError("The passphrase must not be empty");
  if (!passphrase.isWellFormed()) throw new RangeError("The passphrase is not proper Unicode text");
  const password = encoder.encode(passphrase.normalize("NFC"));
  try {
    const secret = new Uint8Array(
      await argon2id({
        ...ARGON2ID,
        password,
        salt: blake2b256("DST1 salt", encoder.encode(name)).slice(0, SALT_BYTES),
        hashLength: SECRET_BYTES,
        outputType: "binary",
      }),
    );
    return { name, id: keyIdOf(secret), secret };
  } finally {
    password.fill(0);
  }
}

/**
 * Reads a key file. Nothing of what is in it gets into a message.
 *
 * @throws {Failure} when there is none, others may read it, or it is no whole key file: with what to do
 */
export function readKeyFile(path: string): Key {
  const fail = (reason: string) => usageFailure(`Cannot use the key file ${path}: ${reason}`);
  const content = new Uint8Array(FILE_BYTES_MAX + 1);
  let bytes = 0;
  try {
    // Opening a pipe would wait for somebody who writes to it.
    if (!Deno.statSync(path).isFile) throw fail("it is not a regular file");
    using file = Deno.openSync(path);
    const info = file.statSync();
    if (!info.isFile) throw fail("it is not a regular file");
    if (info.uid !== Deno.uid() && info.uid !== 0) throw fail(`it belongs to somebody else (user ${info.uid})`);
    const mode = (info.mode ?? 0) & 0o777;
    if ((mode & 0o077) !== 0) {
      throw fail(`others may use it too (mode ${mode.toString(8).padStart(4, "0")}): run chmod 600 ${path}`);
    }
    while (bytes < content.length) {
      const read = file.readSync(content.subarray(bytes));
      if (read === null) break;
      bytes += read;
    }
    if (bytes > FILE_BYTES_MAX) throw fail(`it has more than ${FILE_BYTES_MAX} bytes, so it is no key file`);
    const result = parseKey(content.subarray(0, bytes));
    if (typeof result === "string") throw fail(result);
    return result;
  } catch (error) {
    if (error instanceof Failure) throw error;
    if (error instanceof Deno.errors.NotFound) throw fail("there is no such file (dst keygen makes one)");
    if (error instanceof Deno.errors.PermissionDenied) throw fail("no permission to read it");
    throw fail(messageOf(error));
  } finally {
    content.fill(0);
  }
}

/**
 * Checks that a key file can get this name: for whoever has to do something before there is a key.
 *
 * @throws {Failure} when there is something of that name, even a link to nothing
 */
export function checkNothingIsAt(path: string): void {
  try {
    Deno.lstatSync(path);
  } catch {
    // Whatever else is wrong with the path, writing says.
    return;
  }
  throw occupied(path);
}

/**
 * Writes a key file that only its owner may read; it is on stable storage when the call returns. What is there already
 * is never touched, and nothing is left where it fails.
 *
 * @throws {Failure} that says why it cannot be written
 */
export function writeKeyFile(path: string, key: Key): void {
  const fail = (reason: string) => writeFailure(path, reason);
  let isMade = false;
  const content = contentOf(key);
  try {
    {
      using file = Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
      isMade = true;
      for (let done = 0; done < content.length;) done += file.writeSync(content.subarray(done));
      file.syncSync();
    }
    using folder = Deno.openSync(path.includes("/") ? path.replace(/[^/]*$/, "") : ".");
    folder.syncSync();
  } catch (error) {
    if (isMade) removeIfThere(path);
    if (error instanceof Deno.errors.AlreadyExists) throw occupied(path);
    if (error instanceof Deno.errors.NotFound) throw fail("there is no such folder");
    if (error instanceof Deno.errors.PermissionDenied) throw fail("no permission");
    throw fail(messageOf(error));
  } finally {
    content.fill(0);
  }
}

function occupied(path: string): Failure {
  return writeFailure(path, "there is something already, and a key is never overwritten; --out names another place");
}

function writeFailure(path: string, reason: string): Failure {
  return new Failure(`Cannot write the key file ${path}: ${reason}`);
}

/** BLAKE2b-256 of both in one. What went in is overwritten where the core has kept it. */
function blake2b256(prefix: string, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const digest = new Uint8Array(blake2b.init().update(prefix).update(bytes).digest("binary"));
  // As many zeroes as the core's block (RFC 7693, section 2.1) take the place of everything shorter.
  blake2b.init().update(new Uint8Array(128)).digest("binary");
  return digest;
}

/** The file's bytes. The secret is at no time a string, which could not be wiped. */
function contentOf({ name, id, secret }: Key): Uint8Array<ArrayBuffer> {
  const start = encoder.encode(`${FIRST_LINE}\nname: ${name}\nid: ${id.toHex()}\nkey: `);
  const content = new Uint8Array(start.length + 2 * secret.length + 1);
  content.set(start);
  for (let i = 0; i < secret.length; i++) {
    content[start.length + 2 * i] = digitOf(secret[i] >> 4);
    content[start.length + 2 * i + 1] = digitOf(secret[i] & 15);
  }
  content[content.length - 1] = LINE_FEED;
  return content;
}

/** The key in a file's bytes, or what is wrong with them. */
function parseKey(content: Uint8Array<ArrayBuffer>): Key | string {
  const lines: Uint8Array<ArrayBuffer>[] = [];
  for (let from = 0; from < content.length;) {
    const end = content.indexOf(LINE_FEED, from);
    if (end < 0) return `line ${lines.length + 1} does not end with a newline: the file is not whole`;
    lines.push(content.subarray(from, end));
    from = end + 1;
  }
  if (lines.length === 0) return "it is empty";
  if (textOf(lines[0]) !== FIRST_LINE) return `line 1 is not "${FIRST_LINE}": it is no key file of this version`;
  if (lines.length !== 4) return `its lines are ${lines.length} and not four: it is not whole, or more than a key`;
  const name = textOf(lines[1]).startsWith("name: ") ? textOf(lines[1]).slice("name: ".length) : "";
  if (!NAME.test(name)) return 'line 2 is not "name: " and 1 to 64 characters of A-Z a-z 0-9 . _ -';
  const id = hexLine(lines[2], "id: ", KEY_ID_BYTES);
  if (id === null) return `line 3 is not "id: " and ${2 * KEY_ID_BYTES} hexadecimal digits`;
  const secret = hexLine(lines[3], "key: ", SECRET_BYTES);
  if (secret === null) return `line 4 is not "key: " and ${2 * SECRET_BYTES} hexadecimal digits`;
  if (keyIdOf(secret).toHex() !== id.toHex()) {
    secret.fill(0);
    return "the id of line 3 does not fit the key of line 4: one of them was changed";
  }
  return { name, id, secret };
}

function textOf(line: Uint8Array<ArrayBuffer>): string {
  // A byte order mark before the first line would not be ours, and is not passed over.
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(line);
}

/** The bytes that a line of a label and hexadecimal digits stands for, or null where it is none. */
function hexLine(line: Uint8Array<ArrayBuffer>, label: string, bytes: number): Uint8Array<ArrayBuffer> | null {
  if (line.length !== label.length + 2 * bytes || textOf(line.subarray(0, label.length)) !== label) return null;
  const value = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) {
    const high = valueOf(line[label.length + 2 * i]);
    const low = valueOf(line[label.length + 2 * i + 1]);
    if (high < 0 || low < 0) {
      value.fill(0);
      return null;
    }
    value[i] = high << 4 | low;
  }
  return value;
}

/** The character code of a value below 16. */
function digitOf(value: number): number {
  return value < 10 ? 0x30 + value : 0x61 + value - 10;
}

/** The value of a hexadecimal digit's character code, in either case, or -1. */
function valueOf(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}
