/**
 * What somebody who reads along gets of a file that `dst copy` writes to an export and reads again.
 *
 * @module
 */
import assert from "node:assert/strict";
import { runChild } from "../../engine/control/child.ts";
import { CIPHER_NAMES, startProcess } from "./exporter_process.ts";
import { randomBytes } from "./bytes.ts";
import { writeKeyFile } from "./keys.ts";
import { Middle, showsAny } from "./middle.ts";
import { hasOpenssl, leaveOut, NO_OPENSSL } from "./rows.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const FILE_BYTES = 256 * 1024;
const SEED = 4;

for (const cipher of CIPHER_NAMES) {
  const isSecret = cipher !== "none";
  const name = `${cipher}: a copied file is ${isSecret ? "nowhere" : "for all to see"} on the wire`;
  if (cipher === "aes-256-gcm" && !hasOpenssl) {
    leaveOut(name, NO_OPENSSL);
    continue;
  }
  Deno.test(name, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "dst-secrecy-" });
    const exporter = await startProcess({ loop: "poll", backend: "memory", keyed: true, crypto: "auto", workers: 1 });
    try {
      const content = randomBytes(SEED, FILE_BYTES);
      Deno.writeFileSync(`${folder}/one`, content);
      writeKeyFile(`${folder}/key`, "main", exporter.keys!.main);
      using middle = new Middle(exporter);
      const remote = `dst://127.0.0.1:${middle.port}/${exporter.exports.disk}`;
      for (const args of [[`${folder}/one`, remote], [remote, `${folder}/two`]]) {
        const { code, stderr } = await runChild(["copy", ...args, "--key", `${folder}/key`, "--cipher", cipher], {
          program: ["run", "--quiet", "-A", MAIN],
          env: { DST_RUNTIME_DIR: folder },
        });
        assert.equal(code, 0, stderr);
      }
      assert.deepEqual(Deno.readFileSync(`${folder}/two`).subarray(0, FILE_BYTES), content);
      const name = new TextEncoder().encode(exporter.exports.disk);
      for (const way of ["up", "down"] as const) {
        const stream = middle.captured(way);
        assert.ok(stream.length > FILE_BYTES, "all of it went that way");
        assert.equal(showsAny(stream, content), !isSecret, way);
      }
      assert.equal(indexOf(middle.captured("up").subarray(0, 1024), name) >= 0, !isSecret, "the name of the export");
    } finally {
      await exporter.stop();
      Deno.removeSync(folder, { recursive: true });
    }
  });
}

/** Where a few bytes stand in others, or -1. */
function indexOf(bytes: Uint8Array, wanted: Uint8Array): number {
  for (let at = 0; at + wanted.length <= bytes.length; at++) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}
