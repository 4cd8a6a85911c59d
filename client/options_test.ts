import assert from "node:assert/strict";
import { parseArguments } from "../engine/control/arguments.ts";
import { Failure } from "../engine/control/failure.ts";
import { makeKey, writeKeyFile } from "../engine/control/key_file.ts";
import { availableCiphers } from "../engine/cryptography.ts";
import { Cipher } from "../protocol/wire.ts";
import { command } from "./command_attach.ts";
import { type ClientSettings, NO_SETTINGS } from "./config.ts";
import { cryptoFor, forgetKey, holderOf, replayBytesOption, sessionOptions } from "./options.ts";

function optionsOf(...args: string[]) {
  return sessionOptions(parseArguments(command.spec, ["h/x", ...args])!);
}

/** Calls a function with the path of a new key file, and its secret as the file has it. */
function withKeyFile(work: (path: string, secret: string) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "dst-options-" });
  try {
    const key = makeKey("backup");
    writeKeyFile(`${folder}/backup.key`, key);
    work(`${folder}/backup.key`, key.secret.toHex());
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("a session has a depth, digests and a loop where none are given, and neither key nor cipher", () => {
  const { holder, digests, ...rest } = optionsOf();
  assert.deepEqual(rest, { depth: 128, key: null, ciphers: ["none"], crypto: "auto", loop: "auto" });
  assert.equal(digests[0], "xxh64");
  assert.equal(digests.at(-1), "none");
  assert.match(holder, / \(pid \d+\)$/);
});

Deno.test("a session has the depth, digests and loop that are given", () => {
  const { depth, digests, loop } = optionsOf("--depth=1024", "--digest=none", "--loop=poll");
  assert.deepEqual({ depth, digests, loop }, { depth: 1024, digests: ["none"], loop: "poll" });
});

Deno.test("with a key everything is encrypted, by the ciphers that this machine has", () => {
  withKeyFile((path) => {
    const hasAes = availableCiphers("auto").includes(Cipher.AES_256_GCM);
    const { key, ciphers, digests } = optionsOf("--key", path);
    assert.equal(key!.name, "backup");
    assert.deepEqual(ciphers, hasAes ? ["chacha20-poly1305", "aes-256-gcm"] : ["chacha20-poly1305"]);
    assert.deepEqual(digests, ["blake2b-256", "hmac-sha256"]);
    assert.deepEqual(optionsOf("--key", path, "--crypto=wasm").ciphers, ["chacha20-poly1305"]);
  });
});

Deno.test("with a key the cipher may be left out, but not what proves who is there", () => {
  withKeyFile((path) => {
    const { ciphers, digests } = optionsOf("--key", path, "--cipher=none", "--digest=hmac-sha256");
    assert.deepEqual([ciphers, digests], [["none"], ["hmac-sha256"]]);
    assert.throws(() => optionsOf("--key", path, "--cipher=none", "--digest=xxh64,none"), {
      exitCode: 2,
      message: /^The digest xxh64, none proves nothing to a peer with a key/,
    });
  });
});

Deno.test("a cipher without a key is a usage error that says why", () => {
  for (const list of ["chacha20-poly1305", "none,aes-256-gcm"]) {
    assert.throws(() => optionsOf("--cipher", list), {
      exitCode: 2,
      message: `--cipher ${list.split(",").at(-1)} needs a key, which both sides have: give its file with --key ` +
        "(dst keygen makes one)",
    });
  }
  assert.deepEqual(optionsOf("--cipher=none").ciphers, ["none"]);
  assert.throws(() => optionsOf("--cipher=aes"), { exitCode: 2, message: /--cipher.*"aes" is not one of chacha20/ });
});

Deno.test("a key file that is of no use is a usage error, without what is in it", () => {
  withKeyFile((path, secret) => {
    Deno.chmodSync(path, 0o640);
    assert.throws(() => optionsOf("--key", path), (error: Error) => {
      assert.match(error.message, /others may use it too \(mode 0640\): run chmod 600/);
      assert(!error.message.includes(secret));
      return true;
    });
    assert.throws(() => optionsOf("--key", `${path}.not`), { exitCode: 2, message: /there is no such file/ });
  });
});

Deno.test("without a key there is nothing to choose about who encrypts", () => {
  withKeyFile((path) => {
    assert.equal(cryptoFor(optionsOf("--key", path)), "auto");
    assert.equal(cryptoFor(optionsOf()), "wasm");
  });
});

Deno.test("a key that is forgotten is wiped", () => {
  withKeyFile((path, secret) => {
    const options = optionsOf("--key", path);
    assert.equal(options.key!.secret.toHex(), secret);
    forgetKey(options);
    assert.deepEqual(options.key!.secret, new Uint8Array(32));
    forgetKey(optionsOf());
  });
});

Deno.test("a holder has at most 255 bytes, and its process id in any case", () => {
  const holder = holderOf("x".repeat(300), 4194304);
  assert.equal(holder.length, 255);
  assert.match(holder, /x \(pid 4194304\)$/);
});

Deno.test("copies of what is not flushed have 64 MiB, or what is given; with fail there are none", () => {
  const bytesOf = (lanes: number, settings: Partial<ClientSettings>, ...args: string[]) => {
    return replayBytesOption(parseArguments(command.spec, ["h/x", ...args])!, lanes, { ...NO_SETTINGS, ...settings });
  };
  const MIB = 1024 * 1024;
  assert.equal(bytesOf(4, {}), 64 * MIB);
  assert.equal(bytesOf(1, {}, "--replay-buffer", "1M"), MIB);
  assert.equal(bytesOf(1, { replayBytes: 2 * MIB }), 2 * MIB);
  assert.equal(bytesOf(1, { replayBytes: 2 * MIB }, "--replay-buffer", "3M"), 3 * MIB);
  assert.equal(bytesOf(1, { onExporterRestart: "fail" }), null);
  assert.equal(bytesOf(1, { onExporterRestart: "fail" }, "--on-exporter-restart", "replay"), 64 * MIB);
  assert.equal(bytesOf(1, {}, "--on-exporter-restart", "fail", "--replay-buffer", "1"), null);
  assert.throws(() => bytesOf(2, {}, "--replay-buffer", "1M"), /1 MiB is not between 2 MiB for 2 lanes and 1 GiB$/);
  assert.throws(() => bytesOf(1, {}, "--replay-buffer", "2G"), /--replay-buffer: 2 GiB is not between/);
  const refuse = (name: string, message: string) => new Failure(`line 7: ${name}: ${message}`);
  assert.throws(() => bytesOf(1, { replayBytes: 17, refuse }), /^Failure: line 7: replay_buffer: 17 bytes is not/);
});
