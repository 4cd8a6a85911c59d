/**
 * The part of the demo that needs a block device: a filesystem on it.
 *
 * @module
 */
import { Failure } from "../engine/control/failure.ts";
import { fillPattern, firstDifference } from "./demo_disk.ts";

const TOOLS = ["mkfs.ext4", "e2fsck", "mount", "umount"];
const FILES = 64;
const FILE_BYTES = 512 * 1024;

/** Where administrators' programs are, which a user's PATH often lacks. */
const PATH = `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin`;

/** Whether the programs that make, mount and check a filesystem are there. */
export function hasFilesystemTools(): boolean {
  return TOOLS.every((tool) =>
    PATH.split(":").some((folder) => {
      try {
        return Deno.statSync(`${folder}/${tool}`).isFile;
      } catch {
        return false;
      }
    })
  );
}

/**
 * Makes an ext4 on the device, fills it, mounts it anew, compares, and checks it.
 *
 * @param mountPoint a folder that is made for it
 * @throws {Failure} when a program fails or a file differs
 */
export async function checkFilesystem(device: string, mountPoint: string, seed: number): Promise<void> {
  Deno.mkdirSync(mountPoint);
  await runTool("mkfs.ext4", ["-q", "-F", device]);
  const chunk = new Uint32Array(FILE_BYTES / 4);
  await mounted(device, mountPoint, () => {
    for (let i = 0; i < FILES; i++) {
      fillPattern(chunk, seed, i);
      Deno.writeFileSync(`${mountPoint}/file-${i}`, new Uint8Array(chunk.buffer));
    }
  });
  await mounted(device, mountPoint, () => {
    for (let i = 0; i < FILES; i++) {
      fillPattern(chunk, seed, i);
      const found = new Uint32Array(Deno.readFileSync(`${mountPoint}/file-${i}`).buffer);
      if (firstDifference(found, chunk) >= 0) {
        throw new Failure(`The file file-${i} differs from what was written`);
      }
    }
  });
  await runTool("e2fsck", ["-f", "-n", device]);
}

async function mounted(device: string, mountPoint: string, work: () => void): Promise<void> {
  await runTool("mount", [device, mountPoint]);
  try {
    work();
  } finally {
    await runTool("umount", [mountPoint]);
  }
}

async function runTool(tool: string, args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(tool, { args, env: { PATH }, stdin: "null", stdout: "null" })
    .output();
  if (!success) throw new Failure(`${tool} failed: ${new TextDecoder().decode(stderr).trim()}`);
}
