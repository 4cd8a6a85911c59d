/**
 * `dst demo`: the main job from end to end, by the same commands that a person would type, each a process of its own.
 *
 * @module
 */
import { parseHostPort } from "../engine/control/address.ts";
import type { Command } from "../engine/control/arguments.ts";
import { DaemonChild, runChild } from "../engine/control/child.ts";
import { Failure, messageOf } from "../engine/control/failure.ts";
import { writeOutput } from "../engine/control/log.ts";
import { formatSize } from "../engine/size.ts";
import { type DemoDisk, FileDisk, verifyPattern, writePattern } from "./demo_disk.ts";
import { checkFilesystem, hasFilesystemTools } from "./demo_filesystem.ts";
import { NbdDisk } from "./demo_nbd.ts";

/** Large enough that speeds mean something, small enough for a machine that emulates its processor. */
const IMAGE_BYTES = 256 * 1024 * 1024;
const PATTERN_BYTES = 128 * 1024 * 1024;
const STEP_COLUMNS = 58;
/** A daemon that has not left by then does not leave. */
const KILL_AFTER_MS = 5000;

/** The command. */
export const command: Command = {
  spec: {
    name: "demo",
    summary: "Exports an image, attaches it, writes and verifies through it, and says how fast that was",
    positionals: "",
    count: [0, 0],
    options: [
      { name: "--nbd", help: "attach by NBD even where there is ublk" },
      { name: "--json", help: "print each step as JSON" },
    ],
    notes: [
      "All of it is on this machine and in a temporary folder, which it removes. As root, and where the kernel has ublk, " +
      "it makes a real block device and a filesystem on it; elsewhere it attaches by an NBD socket.",
    ],
    examples: [["demo", "takes some seconds and changes nothing"]],
  },
  async run(args) {
    const folder = Deno.makeTempDirSync({ prefix: "dst-demo-" });
    const demo = new Demo(folder, args.has("--json"));
    // The terminal's interrupt reaches the children too: they leave by themselves, and the demo fails at its step.
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      Deno.addSignalListener(signal, () => demo.interrupt(signal));
    }
    try {
      await demo.run(!args.has("--nbd") && await hasUblk());
    } finally {
      await demo.cleanUp();
    }
    return 0;
  },
};

class Demo {
  readonly #folder: string;
  readonly #json: boolean;
  readonly #env: Record<string, string>;
  #exporter: DaemonChild | null = null;
  #attachment: DaemonChild | null = null;
  /** What `dst detach` calls the attachment. */
  #place = "";
  /** Open on the attachment: as long as it is, nothing but force detaches it. */
  #disk: DemoDisk | null = null;
  /** The signal that asked the demo to end, or null. */
  #interrupt: Deno.Signal | null = null;

  constructor(folder: string, json: boolean) {
    this.#folder = folder;
    this.#json = json;
    // Records of its own, so that it meets no other daemon of this machine.
    this.#env = { DST_RUNTIME_DIR: `${folder}/run` };
  }

  async run(ublk: boolean): Promise<void> {
    const startedAt = performance.now();
    const image = `${this.#folder}/disk.img`;
    const seed = crypto.getRandomValues(new Uint32Array(1))[0];
    await this.#step(`make an image of ${formatSize(IMAGE_BYTES)}`, 0, () => {
      Deno.writeFileSync(image, new Uint8Array(0));
      return Deno.truncate(image, IMAGE_BYTES);
    });
    const address = await this.#step("dst export disk.img", 0, () => this.#export(image));
    const place = await this.#step(
      ublk ? `dst attach ${address}/disk.img` : `dst attach ${address}/disk.img --nbd unix:nbd.sock`,
      0,
      () => this.#attach(`${address}/disk.img`, ublk),
    );
    const disk: DemoDisk = ublk ? FileDisk.open(place) : await NbdDisk.connect(place);
    this.#disk = disk;
    const amount = formatSize(PATTERN_BYTES);
    await this.#step(`write ${amount} through ${ublk ? place : "the socket"}, and flush`, PATTERN_BYTES, () => {
      if (disk.size !== IMAGE_BYTES) throw new Failure(`The disk has ${disk.size} bytes instead of ${IMAGE_BYTES}`);
      return writePattern(disk, PATTERN_BYTES, seed);
    });
    await this.#step("read it back, and compare", PATTERN_BYTES, async () => {
      await disk.dropCache();
      await verifyPattern(disk, PATTERN_BYTES, seed);
    });
    await this.#step("compare it with the image on the other side", PATTERN_BYTES, async () => {
      const other = FileDisk.open(image);
      await verifyPattern(other, PATTERN_BYTES, seed);
      await other.close();
    });
    this.#disk = null;
    await disk.close();
    if (ublk && hasFilesystemTools()) {
      await this.#step("ext4: make, mount, fill, unmount, mount, compare, check", 0, () => {
        return checkFilesystem(place, `${this.#folder}/mnt`, seed);
      });
    }
    await this.#step("dst detach", 0, () => this.#detach());
    await this.#step(`dst copy ${address}/disk.img copy.img --verify`, IMAGE_BYTES, async () => {
      const args = ["copy", `${address}/disk.img`, `${this.#folder}/copy.img`, "--verify"];
      const { code, stderr } = await runChild(args, { env: this.#env });
      if (code !== 0) throw new Failure(stderr.trim());
    });
    await this.#step("stop the exporter", 0, () => this.#stopExporter());
    this.#report({ event: "done", elapsedMs: Math.round(performance.now() - startedAt) }, () => {
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
      return `all of it worked, in ${seconds} s, by ${ublk ? "ublk: a real block device" : "an NBD socket"}\n`;
    });
  }

  /** Makes the step that runs fail, or else the next one. */
  interrupt(signal: Deno.Signal): void {
    this.#interrupt = signal;
    for (const child of [this.#attachment, this.#exporter]) child?.signal("SIGTERM");
  }

  /** Ends what still runs, which is nothing unless a step has failed, and removes the folder. */
  async cleanUp(): Promise<void> {
    // It is broken where its other end has gone already.
    await this.#disk?.close().catch(() => {});
    // Nothing of value is on the device, so that it may go by force; a process that is killed would leave it behind.
    if (this.#attachment !== null && this.#place !== "") {
      await runChild(["detach", this.#place, "--force"], { env: this.#env });
    }
    for (const child of [this.#attachment, this.#exporter]) {
      if (child === null) continue;
      child.signal("SIGTERM");
      const killer = setTimeout(() => child.signal("SIGKILL"), KILL_AFTER_MS);
      await child.result();
      clearTimeout(killer);
    }
    Deno.removeSync(this.#folder, { recursive: true });
  }

  async #export(image: string): Promise<string> {
    const args = ["export", image, "--listen", "127.0.0.1:0", "--state-dir", `${this.#folder}/state`];
    this.#exporter = new DaemonChild(args, { env: this.#env });
    const event = await this.#exporter.waitFor("listening");
    const { host, port } = parseHostPort(String(event.address));
    return `${host}:${port}`;
  }

  /** @returns the path of the device or socket */
  async #attach(remote: string, ublk: boolean): Promise<string> {
    const socket = `${this.#folder}/nbd.sock`;
    // An exporter that is gone was interrupted, and does not come back.
    const args = ["attach", remote, "--resends", "1", ...ublk ? [] : ["--nbd", `unix:${socket}`]];
    this.#attachment = new DaemonChild(args, { env: this.#env });
    const event = await this.#attachment.waitFor("attached");
    this.#place = String(event.device ?? event.nbd);
    return ublk ? String(event.device) : socket;
  }

  async #detach(): Promise<void> {
    const { code, stderr } = await runChild(["detach", this.#place], { env: this.#env });
    if (code !== 0) throw new Failure(stderr.trim());
    await this.#mustEndWell(this.#attachment!.result());
    this.#attachment = null;
  }

  async #stopExporter(): Promise<void> {
    await this.#mustEndWell(this.#exporter!.stop());
    this.#exporter = null;
  }

  async #mustEndWell(result: Promise<{ code: number; stderr: string }>): Promise<void> {
    const { code, stderr } = await result;
    if (code !== 0) throw new Failure(`A daemon ended with exit code ${code}: ${stderr.trim()}`);
  }

  async #step<T>(name: string, bytes: number, work: () => Promise<T>): Promise<T> {
    const startedAt = performance.now();
    let result: T;
    try {
      this.#mustGoOn();
      result = await work();
    } catch (error) {
      this.#mustGoOn();
      throw new Failure(`The step "${name}" failed: ${messageOf(error)}`);
    }
    const elapsedMs = performance.now() - startedAt;
    this.#report({ event: "step", name, bytes, elapsedMs: Math.round(elapsedMs) }, () => {
      const time = `${(elapsedMs / 1000).toFixed(2)} s`.padStart(9);
      const speed = bytes === 0 ? "" : `${(bytes / elapsedMs / 1000).toFixed(0)} MB/s`.padStart(12);
      return `${name.padEnd(STEP_COLUMNS)}${time}${speed}\n`;
    });
    return result;
  }

  #mustGoOn(): void {
    if (this.#interrupt === null) return;
    throw new Failure(`Cannot finish the demo: ${this.#interrupt} came; what it had made is removed`);
  }

  #report(json: Record<string, unknown>, text: () => string): void {
    writeOutput(this.#json ? JSON.stringify(json) + "\n" : text());
  }
}

/** Whether this process can make ublk devices. The module is loaded when it is there and was not. */
async function hasUblk(): Promise<boolean> {
  if (Deno.uid() !== 0) return false;
  const present = () => {
    try {
      return Deno.statSync("/dev/ublk-control").isCharDevice === true;
    } catch {
      return false;
    }
  };
  if (present()) return true;
  try {
    await new Deno.Command("modprobe", { args: ["-q", "ublk_drv"], stdout: "null", stderr: "null" }).output();
  } catch {
    // There is no modprobe: then the kernel has what it has.
  }
  return present();
}
