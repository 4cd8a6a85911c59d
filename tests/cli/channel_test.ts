import assert from "node:assert/strict";
import { verifyPattern, writePattern } from "../../client/demo_disk.ts";
import { NbdDisk } from "../../client/demo_nbd.ts";
import { Workplace } from "./program.ts";

const MIB = 1024 * 1024;

/** Makes a key in the workplace; gives its secret's digits, which nothing must ever say. */
async function makeKey(place: Workplace, name: string): Promise<string> {
  const { code, stderr } = await place.run("keygen", name);
  assert.equal(code, 0, stderr);
  return /^key: ([0-9a-f]{64})$/m.exec(Deno.readTextFileSync(`${place.folder}/${name}.key`))![1];
}

for (const cipher of ["chacha20-poly1305", "none"]) {
  Deno.test(
    `with a key and the cipher ${cipher} a disk is listed, attached over two lanes, written, copied and measured`,
    Workplace.test(async (place) => {
      const secret = await makeKey(place, "backup");
      place.file("disk.img", 8 * MIB);
      const channel = ["--key", "backup.key", "--cipher", cipher];
      const { daemon: exporter, address } = await place.exporter("disk.img", "--workers", "2", ...channel);
      const nbd = `unix:${place.folder}/nbd.sock`;
      const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", nbd, "--lanes", "2", ...channel);
      await daemon.waitFor("attached");
      const disk = await NbdDisk.connect(`${place.folder}/nbd.sock`);
      await writePattern(disk, 4 * MIB, 5);
      await verifyPattern(disk, 4 * MIB, 5);
      await disk.close();
      const status = JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status;
      assert.deepEqual([status.cipher, status.key, status.lanes], [cipher, "backup", 2]);
      assert.equal(status.digest, cipher === "none" ? "blake2b-256" : "none");
      assert.match(status.crypto, /^(wasm|openssl)$/);
      const shown = (await place.run("status")).stdout;
      const algorithm = cipher === "none" ? status.digest : cipher;
      assert(shown.includes(` ${algorithm} (${status.crypto}), key backup, 2 lanes `), shown);
      const detached = await place.run("detach", nbd);
      assert.equal(detached.code, 0, detached.stderr);
      const said = [shown, (await daemon.result()).stderr];
      for (
        const args of [
          ["list", address],
          ["info", `${address}/disk.img`],
          ["copy", `${address}/disk.img`, "back.img", "--verify"],
          ["bench", `${address}/disk.img`, "--seconds", "1", "--depth", "1"],
        ]
      ) {
        const { code, stdout, stderr } = await place.run(...args, ...channel);
        assert.equal(code, 0, stderr);
        said.push(stdout, stderr);
      }
      assert.match(said.at(-2)!, new RegExp(`^cipher ${cipher}, digest .*, by (wasm|openssl)\nMIX `));
      assert.deepEqual(Deno.readFileSync(`${place.folder}/back.img`), Deno.readFileSync(`${place.folder}/disk.img`));
      said.push((await exporter.stop()).stderr);
      assert(!said.join("").includes(secret));
    }),
  );
}

Deno.test(
  "without the key, or with another one, no command gets in, and each says why in one line",
  Workplace.test(async (place) => {
    await makeKey(place, "backup");
    const secret = await makeKey(place, "stranger");
    const { daemon, address } = await place.exporter("disk=mem:1M", "--key", "backup.key");
    const remote = `${address}/disk`;
    const nbd = ["--nbd", `unix:${place.folder}/nbd.sock`];
    const commands = [["list", address], ["info", remote], ["attach", remote, ...nbd], ["copy", remote, "x.img"]];
    for (const command of [...commands, ["bench", remote]]) {
      await place.fails(1, /^dst: Cannot .*: .* admits nobody without a key: give it with --key FILE/, ...command);
      await place.fails(
        1,
        /^dst: Cannot .*: authentication failed: .* the key stranger \(id [0-9a-f]{8}\.\.\.\) is not known there/,
        ...command,
        "--key",
        "stranger.key",
      );
    }
    const { stderr } = await daemon.stop();
    assert.match(stderr, /127\.0\.0\.1/);
    assert(!stderr.includes(secret));
  }),
);

Deno.test(
  "what cannot be about keys and ciphers is a line on standard error and exit code 2",
  Workplace.test(async (place) => {
    await makeKey(place, "backup");
    const attach = ["attach", "127.0.0.1/disk", "--nbd", `unix:${place.folder}/nbd.sock`];
    await place.fails(2, /--cipher aes-256-gcm needs a key.*--key/, ...attach, "--cipher", "aes-256-gcm");
    await place.fails(2, /there is no such file \(dst keygen makes one\)/, ...attach, "--key", "not.key");
    const keyed = [...attach, "--key", "backup.key"];
    await place.fails(2, /--crypto: "native" is not one of auto, wasm, openssl/, ...keyed, "--crypto", "native");
    await place.fails(2, /"rot13" is not one of chacha20-poly1305/, ...keyed, "--cipher", "rot13");
    await place.fails(2, /The digest xxh64 proves nothing/, ...keyed, "--cipher", "none", "--digest", "xxh64");
    Deno.chmodSync(`${place.folder}/backup.key`, 0o644);
    await place.fails(2, /backup\.key: others may use it too \(mode 0644\): run chmod 600/, ...keyed);
  }),
);
