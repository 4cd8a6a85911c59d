/**
 *                           key, cipher, digest, 2 lanes
 *   ext4 on /dev/ublkbN ──── dst attach ═══════════════▶ dst export ──▶ file
 *
 * @module
 */
import assert from "node:assert/strict";
import { makeKey, writeKeyFile } from "../../../engine/control/key_file.ts";
import { availableCiphers } from "../../../engine/cryptography.ts";
import { checkFilesystem, dst, makeFilesystem, mount, type Output, run, scratchFolder, shell } from "../guest_tools.ts";
import { directAccess, makeDiskFile, startAttach, startExport } from "../disk.ts";

/** A tree of a hundred files that is there wherever the VM is: a part of its own kernel's modules. */
const TREE = `/lib/modules/${(await run(["uname", "-r"])).stdout.trim()}/kernel/crypto`;
/** By the tables of SPEC.md, section 2: what each suite is asked for with. */
const SUITES: readonly { readonly name: string; readonly args: readonly string[] }[] = [
  { name: "chacha20-poly1305", args: ["--cipher", "chacha20-poly1305", "--crypto", "wasm"] },
  { name: "aes-256-gcm", args: ["--cipher", "aes-256-gcm"] },
  { name: "blake2b-256", args: ["--cipher", "none", "--digest", "blake2b-256"] },
];

/** Makes a key file in the folder; gives its path. */
function keyFile(folder: string, name: string): string {
  writeKeyFile(`${folder}/${name}.key`, makeKey(name));
  return `${folder}/${name}.key`;
}

/** Expects one line for a person, and no device. */
function expectRefusal({ code, stderr }: Output, message: RegExp): void {
  assert.equal(code, 1, stderr);
  assert.match(stderr, /^dst: Cannot attach [^\n]*\n$/);
  assert.match(stderr, message);
  assert.deepEqual([...Deno.readDirSync("/dev")].filter(({ name }) => name.startsWith("ublkc")), []);
}

for (const { name, args } of SUITES) {
  // OpenSSL is a part of the machine that may be missing.
  const isMissing = name === "aes-256-gcm" && availableCiphers("auto").length < 2;
  Deno.test({
    name: `over ${name} an ext4 filesystem is made, filled, checked, and found whole on the other side`,
    ignore: isMissing,
    fn: async () => {
      using folder = scratchFolder();
      const channel = ["--key", keyFile(folder.path, "vm"), ...args];
      const disk = await makeDiskFile(folder.path);
      await using exported = await startExport(folder.path, [disk, "--workers", "2", ...channel]);
      await using attached = await startAttach(`${exported.address}/disk.img`, ["--lanes", "2", ...channel]);
      const { attachments } = JSON.parse((await dst(["status", "--json"])).stdout);
      const { cipher, digest, key, lanes } = attachments[0].status;
      assert.deepEqual([cipher === "none" ? digest : cipher, key, lanes], [name, "vm", 2]);
      await makeFilesystem("ext4", attached.device);
      {
        await using mounted = await mount(attached.device);
        await run(["cp", "-r", TREE, `${mounted.path}/tree`]);
        await run(["sync"]);
        await run(["sysctl", "-q", "-w", "vm.drop_caches=3"]);
        await run(["diff", "-r", TREE, `${mounted.path}/tree`]);
      }
      await checkFilesystem("ext4", attached.device);
      await attached.leave();
      assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
      await checkFilesystem("ext4", disk);
      await using mounted = await mount(disk, "ro,loop");
      await run(["diff", "-r", TREE, `${mounted.path}/tree`]);
    },
  });
}

Deno.test("with the wrong key, none, or the wrong cipher there is no device, and a line says why", async () => {
  using folder = scratchFolder();
  const key = keyFile(folder.path, "right");
  const cipher = ["--cipher", "chacha20-poly1305"];
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path), "--key", key, ...cipher]);
  const attach = (...args: string[]) => dst(["attach", `${exported.address}/disk.img`, ...args]);
  const wrong = keyFile(folder.path, "wrong");
  expectRefusal(await attach("--key", wrong), /authentication failed: .* the key wrong \(id [0-9a-f]{8}\.\.\.\)/);
  expectRefusal(await attach(), /admits nobody without a key/);
  expectRefusal(
    await attach("--key", key, "--cipher", "none"),
    /there is no cipher in common: .* accepts chacha20-poly1305, this side none/,
  );
  await using attached = await startAttach(`${exported.address}/disk.img`, ["--key", key]);
  await shell(`dd if=/dev/urandom of=${attached.device} bs=64k count=4 oflag=direct status=none`);
  await attached.leave();
});

Deno.test("a key that may only read attaches for reading alone", async () => {
  using folder = scratchFolder();
  const disk = await makeDiskFile(folder.path);
  await shell(`dd if=/dev/urandom of=${disk} bs=1M count=4 conv=notrunc status=none`);
  const [writer, reader] = ["writer", "reader"].map((name) => keyFile(folder.path, name));
  const lines = [
    `[[keys]]\nfile = "${writer}"`,
    `[[keys]]\nfile = "${reader}"`,
    `[[exports]]\npath = "${disk}"\npermissions = { writer = "read-write", reader = "read" }\n`,
  ];
  Deno.writeTextFileSync(`${folder.path}/exporter.toml`, lines.join("\n"));
  await using exported = await startExport(folder.path, ["--config", `${folder.path}/exporter.toml`]);
  const remote = `${exported.address}/disk.img`;
  expectRefusal(await dst(["attach", remote, "--key", reader]), /no permission to write .*--read-only/);
  {
    await using attached = await startAttach(remote, ["--key", reader, "--read-only"]);
    await run(["cmp", "-n", `${4 << 20}`, attached.device, disk]);
    assert.match(await directAccess(attached.device, "write", 0), /Operation not permitted|Read-only/);
    await attached.leave();
  }
  await using attached = await startAttach(remote, ["--key", writer]);
  assert.doesNotMatch(await directAccess(attached.device, "write", 0), /Operation not permitted|Read-only/);
  await attached.leave();
});
