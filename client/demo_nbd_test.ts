import assert from "node:assert/strict";
import { verifyPattern, writePattern } from "./demo_disk.ts";
import { NbdDisk } from "./demo_nbd.ts";

const MIB = 1024 * 1024;
const nbdkit = findNbdkit();

function findNbdkit(): boolean {
  try {
    return new Deno.Command("nbdkit", { args: ["--version"], stdout: "null", stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

Deno.test({
  name: "the demo's NBD client writes to and reads from another server (needs nbdkit)",
  ignore: !nbdkit,
  async fn() {
    await withServer(["memory", "16M"], async (path) => {
      const disk = await NbdDisk.connect(path);
      assert.equal(disk.size, 16 * MIB);
      await writePattern(disk, 8 * MIB, 3);
      await verifyPattern(disk, 8 * MIB, 3);
      await assert.rejects(verifyPattern(disk, 16 * MIB, 3), /differs/);
      await assert.rejects(disk.read(16 * MIB, new Uint8Array(512)), /answered with error 22/);
      await disk.close();
      await assert.rejects(disk.flush(), /closed/);
    });
  },
});

Deno.test("a server that does not speak NBD, or ends, is an error", async () => {
  for (const [bytes, message] of [[18, /does not speak NBD/], [5, /closed the connection/]] as const) {
    const folder = Deno.makeTempDirSync();
    const listener = Deno.listen({ transport: "unix", path: `${folder}/s` });
    const served = listener.accept().then(async (connection) => {
      await connection.write(new Uint8Array(bytes));
      connection.close();
    });
    await assert.rejects(NbdDisk.connect(`${folder}/s`), message);
    await served;
    listener.close();
    Deno.removeSync(folder, { recursive: true });
  }
});

async function withServer(plugin: string[], work: (path: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  const path = `${folder}/nbd.sock`;
  const child = new Deno.Command("nbdkit", { args: ["--foreground", "--unix", path, ...plugin], stdout: "null" })
    .spawn();
  try {
    while (!exists(path)) await new Promise((resolve) => setTimeout(resolve, 10));
    await work(path);
  } finally {
    child.kill("SIGTERM");
    await child.status;
    Deno.removeSync(folder, { recursive: true });
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
