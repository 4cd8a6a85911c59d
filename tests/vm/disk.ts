/**
 * Disks for the cases: exported by one `dst` process and attached by another, in the same VM.
 *
 * @module
 */
import assert from "node:assert/strict";
import { attempt, Daemon, dst, exists, run, waitForDevice, waitForGone } from "./guest_tools.ts";

/** Large enough for every mkfs (xfs wants 300 MiB); the file behind it is sparse. */
export const DISK_BYTES = 512 * 1024 * 1024;

/** An exporter that listens. */
export interface Exported extends AsyncDisposable {
  readonly daemon: Daemon;
  /** `HOST:PORT` of the DST protocol. */
  readonly address: string;
}

/** An attached ublk device. */
export interface Attached extends AsyncDisposable {
  readonly daemon: Daemon;
  /** The block device's path. */
  readonly device: string;
  /** Bytes. */
  readonly size: number;
  /** Asks the daemon to leave with SIGTERM; it must do so with status 0 and take the device with it. */
  leave(): Promise<void>;
}

/** A new sparse file of {@link DISK_BYTES} in the folder: its path. */
export async function makeDiskFile(folder: string, name = "disk.img"): Promise<string> {
  const path = `${folder}/${name}`;
  await run(["truncate", "-s", `${DISK_BYTES}`, path]);
  return path;
}

/**
 * Exports, with the state kept in the folder.
 *
 * @param address where it listens: a free port of the loopback address, or where one that was killed has listened
 */
export async function startExport(folder: string, args: string[], address = "127.0.0.1:0"): Promise<Exported> {
  const daemon = new Daemon(["export", "--listen", address, "--state-dir", `${folder}/state`, ...args]);
  try {
    const event = await daemon.event("listening", { protocol: "dst" });
    return { daemon, address: String(event.address), [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose]() };
  } catch (error) {
    await daemon[Symbol.asyncDispose]();
    throw error;
  }
}

/** Attaches an export by ublk. At the end of the scope what is left of it is removed by force. */
export async function startAttach(remote: string, args: string[] = []): Promise<Attached> {
  const daemon = new Daemon(["attach", remote, ...args]);
  try {
    const event = await daemon.event("attached");
    const device = String(event.device);
    await waitForDevice(device);
    const leave = async () => {
      assert.equal(await daemon.stop(), 0, daemon.log);
      await waitForGone(device);
      assert(!exists(device.replace("ublkb", "ublkc")), "the character device is left behind");
    };
    const end = () => endByForce(daemon, device);
    return { daemon, device, size: Number(event.size), leave, [Symbol.asyncDispose]: end };
  } catch (error) {
    await endByForce(daemon);
    throw error;
  }
}

/** After a failed case only: SIGTERM first, so that the kernel's side of the device does not stay behind. */
async function endByForce(daemon: Daemon, device?: string): Promise<void> {
  const isAlive = !daemon.ended;
  if (isAlive) await daemon.stop().catch(() => undefined);
  await daemon[Symbol.asyncDispose]();
  // A device outlives a daemon that has to be killed here.
  if (isAlive && device !== undefined && exists(device)) await dst(["detach", device, "--force"]);
}

/** How much of the file is allocated, in bytes. */
export async function allocatedBytes(path: string): Promise<number> {
  return Number((await run(["stat", "-c", "%b", path])).stdout.trim()) * 512;
}

/** Reads or writes one 4 KiB block of the device past the page cache: what the shell says, with its exit status. */
export async function directAccess(device: string, direction: "read" | "write", offset: number): Promise<string> {
  const block = Math.floor(offset / 4096);
  const common = ["bs=4096", "count=1", "status=none"];
  const output = direction === "read"
    ? await attempt(["dd", `if=${device}`, "of=/dev/null", "iflag=direct", `skip=${block}`, ...common])
    : await attempt(["dd", "if=/dev/zero", `of=${device}`, "oflag=direct", "conv=notrunc", `seek=${block}`, ...common]);
  return output.code === 0 ? "" : output.stderr.trim();
}
