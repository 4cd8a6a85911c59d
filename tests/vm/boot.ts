/**
 * Boots a virtual machine with a kernel that has ublk and runs `guest.ts` in it, with this machine's own Deno, programs
 * and checkout: the host's root is shared read-only, and writes land in the VM's memory.
 *
 * ```sh
 * deno run -A tests/vm/boot.ts                     # every case
 * deno run -A tests/vm/boot.ts attach_test.ts      # the case files whose path contains the word
 * deno run -A tests/vm/boot.ts --shell 'uname -a'  # one command
 * ```
 *
 * The processor is emulated: KVM is not to be had everywhere that these tests run. `DST_VM_ACCEL=kvm` uses it.
 *
 * @module
 */
import { TextLineStream } from "./lines.ts";
import { ensureKernel, findProgram, type Kernel, searchPath } from "../packages.ts";

/** The checkout, an absolute path without a slash at the end. */
const REPOSITORY = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
/** Memory of the VM: Deno's own image in the page cache, a few processes of 100 MiB, and the disks in tmpfs. */
const MEMORY_MIB = 4096;
/** As many as the machines that the figures in the documentation come from. */
const PROCESSORS = 2;
/**
 * One thread emulates both processors. With one for each, QEMU before 8.1 can go on with the stale translation of code that
 * another processor rewrites meanwhile, as V8 does with what it compiles: the guest's Deno died of that now and then, at the
 * start of a Worker.
 */
const EMULATOR = "tcg,thread=single";
/** All that the emulator has but protection keys, with which V8 guards what it compiles. */
const CPU = "max,pku=off";
/** How long the VM may take to power off once the script has ended. */
const POWER_OFF_TIMEOUT_MS = 10_000;
/** How long the cases may take altogether; the long forms of the tests get ten times as much. */
const SCRIPT_TIMEOUT_MS = (Deno.env.get("DST_TEST_LONG") === "1" ? 10 : 1) * 45 * 60_000;
/** Modules that the first process needs to reach the shared root; all others are loaded from there. */
const BOOT_MODULES = ["9pnet_virtio", "9p", "overlay"];
/** What the kernel writes to its log when it has gone wrong (`lib/bug.c`, `mm/kasan`, `kernel/panic.c`, `arch/x86/mm/fault.c`). */
const KERNEL_FAULT =
  /\bBUG: |\bOops: |general protection fault|Kernel panic|WARNING: CPU: |blocked for more than \d+ seconds/;
/** What the first process (`init`) says about the run itself; the script's last line may have had no end. */
const INIT_LINE = /^(.*)dst-vm: (exit (\d+)|failed: .*)$/;

/** How a run in the VM ended. */
export interface VmResult {
  /** The script's exit status; null when the VM ended, or was ended, before the script did. */
  readonly status: number | null;
  /** Why there is no status, or what the kernel complained of; empty when all is well. */
  readonly complaints: readonly string[];
}

/**
 * Boots, runs a shell script as root in the shared root, and powers off.
 *
 * @param script for /bin/sh, run in the checkout
 * @param timeoutMs after which the VM is killed
 * @param onLine is given every line that the script prints, without its end
 * @throws Error when the VM cannot be started at all
 */
export async function runInVm(script: string, timeoutMs: number, onLine: (line: string) => void): Promise<VmResult> {
  const kernel = await ensureKernel();
  const work = Deno.makeTempDirSync({ prefix: "dst-vm-" });
  try {
    await buildInitramfs(kernel, script, work);
    return await boot(kernel, work, timeoutMs, onLine);
  } finally {
    Deno.removeSync(work, { recursive: true });
  }
}

/** The script that runs `guest.ts` with the given arguments. */
export async function guestScript(args: readonly string[]): Promise<string> {
  const command = ["run", "-A", "--quiet", "--cached-only", `${REPOSITORY}/tests/vm/guest.ts`, ...args];
  return `${await preamble()}exec ${[Deno.execPath(), ...command].map(quote).join(" ")}\n`;
}

/** What every script in the VM begins with: the environment of the tests. */
async function preamble(): Promise<string> {
  const info = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"], stderr: "null" }).output();
  const denoDir = JSON.parse(new TextDecoder().decode(info.stdout)).denoDir as string;
  const environment: Record<string, string> = {
    PATH: searchPath(),
    HOME: Deno.env.get("HOME") ?? "/root",
    DENO_DIR: denoDir,
    DENO_NO_UPDATE_CHECK: "1",
    NO_COLOR: "1",
    // Memory-backed, unlike the root, and never the place of a checkout that must stay visible, as /tmp may be.
    TMPDIR: "/run/tmp",
    DST_VM: "1",
  };
  for (const name of ["CI", "DST_TEST_LONG", "DST_TEST_SEED"]) {
    const value = Deno.env.get(name);
    if (value !== undefined) environment[name] = value;
  }
  const lines = Object.entries(environment).map(([name, value]) => `export ${name}=${quote(value)}\n`);
  return `${lines.join("")}cd ${quote(REPOSITORY)} || exit 125\n`;
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Writes `work/initrd`: busybox, the modules to reach the root, `init`, and the script. */
async function buildInitramfs(kernel: Kernel, script: string, work: string): Promise<void> {
  const tree = `${work}/tree`;
  for (const folder of ["bin", "modules"]) Deno.mkdirSync(`${tree}/${folder}`, { recursive: true });
  const busybox = findProgram("busybox");
  if (busybox === null) throw new Error("Cannot build the VM's first root: install busybox-static");
  Deno.copyFileSync(busybox, `${tree}/bin/busybox`);
  Deno.copyFileSync(new URL("init", import.meta.url), `${tree}/init`);
  Deno.chmodSync(`${tree}/init`, 0o755);
  Deno.writeTextFileSync(`${tree}/script`, script);
  const modules = `${kernel.root}/lib/modules/${kernel.release}`;
  const order: string[] = [];
  for (const path of loadOrder(Deno.readTextFileSync(`${modules}/modules.dep`), BOOT_MODULES)) {
    const name = path.replace(/^.*\//, "").replace(/\.xz$/, "");
    if (path.endsWith(".xz")) {
      const output = await new Deno.Command("xz", { args: ["-dc", `${modules}/${path}`] }).output();
      if (!output.success) throw new Error(`Cannot unpack the kernel module ${path}`);
      Deno.writeFileSync(`${tree}/modules/${name}`, output.stdout);
    } else {
      Deno.copyFileSync(`${modules}/${path}`, `${tree}/modules/${name}`);
    }
    order.push(name);
  }
  Deno.writeTextFileSync(`${tree}/modules/order`, order.map((name) => `${name}\n`).join(""));
  Deno.writeTextFileSync(`${tree}/modules/tree`, modules);
  const archive = await new Deno.Command("sh", {
    args: ["-c", "find . | cpio --quiet -o -H newc > ../initrd"],
    cwd: tree,
  }).output();
  if (!archive.success) throw new Error(`Cannot pack the VM's first root: ${new TextDecoder().decode(archive.stderr)}`);
}

/**
 * The files to load, in order, so that the named modules find what they depend on.
 *
 * @param dependencies the text of `modules.dep`: `path: path …`, what is depended on listed with the nearest first
 * @param names modules, without folder and ending
 * @throws Error when a module is not in the list
 */
export function loadOrder(dependencies: string, names: readonly string[]): string[] {
  const lines = dependencies.split("\n").filter((line) => line.includes(":"));
  const order = new Set<string>();
  for (const name of names) {
    const line = lines.find((line) => /([^/]*)\.ko(\.xz)?:/.exec(line)?.[1] === name);
    if (line === undefined) throw new Error(`Cannot build the VM's first root: the kernel has no module ${name}`);
    const [path, rest] = line.split(":");
    const needed = rest.split(" ").filter((word) => word !== "");
    for (const one of [...needed.reverse(), path]) order.add(one);
  }
  return [...order];
}

async function boot(kernel: Kernel, work: string, timeoutMs: number, onLine: (line: string) => void) {
  const accelerator = Deno.env.get("DST_VM_ACCEL") ?? "tcg";
  const log = `${work}/kernel.log`;
  const child = new Deno.Command("qemu-system-x86_64", {
    args: [
      ["-accel", accelerator === "tcg" ? EMULATOR : accelerator],
      ["-cpu", CPU, "-smp", `${PROCESSORS}`, "-m", `${MEMORY_MIB}`],
      ["-nodefaults", "-display", "none", "-no-reboot", "-monitor", "none"],
      ["-serial", "stdio", "-serial", `file:${log}`],
      ["-device", "virtio-rng-pci"],
      ["-kernel", `${kernel.root}/boot/vmlinuz-${kernel.release}`, "-initrd", `${work}/initrd`],
      ["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"],
      ["-append", "console=ttyS1 panic=-1 random.trust_cpu=on"],
    ].flat(),
    env: { PATH: searchPath() },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const complaints: string[] = [];
  const kill = (why: string) => {
    complaints.push(why);
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended by itself meanwhile.
    }
  };
  const interrupted = () => kill("the VM was interrupted");
  Deno.addSignalListener("SIGINT", interrupted);
  Deno.addSignalListener("SIGTERM", interrupted);
  let timer = setTimeout(() => kill(`the VM was killed: not done after ${timeoutMs / 1000} s`), timeoutMs);
  let status: number | null = null;
  try {
    for await (const line of child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())) {
      const said = INIT_LINE.exec(line);
      if (said === null) {
        onLine(line);
        continue;
      }
      if (said[1] !== "") onLine(said[1]);
      if (said[3] === undefined) complaints.push(`the VM could not be set up: ${said[2]}`);
      else status = Number(said[3]);
      clearTimeout(timer);
      timer = setTimeout(() => kill("the VM did not power off"), POWER_OFF_TIMEOUT_MS);
    }
    await child.status;
  } finally {
    clearTimeout(timer);
    Deno.removeSignalListener("SIGINT", interrupted);
    Deno.removeSignalListener("SIGTERM", interrupted);
  }
  const kernelLog = Deno.readTextFileSync(log).split("\n").map((line) => line.trimEnd());
  const faults = kernelLog.filter((line) => KERNEL_FAULT.test(line));
  complaints.push(...faults.map((line) => `the VM's kernel: ${line}`));
  if (status === null && complaints.length === 0) complaints.push("the VM ended before the script did");
  if (complaints.length > 0) {
    onLine("the end of the VM's kernel log:");
    for (const line of kernelLog.slice(-40)) onLine(`  ${line}`);
  }
  return { status, complaints };
}

/** Runs the case files in the VM and prints what they print; an exit status for the whole. */
async function main(args: string[]): Promise<number> {
  const print = (line: string) => console.log(line);
  // The guest has no network: what the tests import must be in Deno's cache before it starts.
  const cases = [...Deno.readDirSync(`${REPOSITORY}/tests/vm/cases`)].filter((entry) => entry.name.endsWith(".ts"));
  const modules = ["main.ts", "tests/vm/guest.ts", ...cases.map((entry) => `tests/vm/cases/${entry.name}`)];
  const cached = await new Deno.Command(Deno.execPath(), {
    args: ["cache", "--quiet", ...modules.filter((path) => exists(`${REPOSITORY}/${path}`))],
    cwd: REPOSITORY,
  }).spawn().status;
  if (!cached.success) return 1;
  const script = args[0] === "--shell" ? `${await preamble()}${args.slice(1).join(" ")}\n` : await guestScript(args);
  const result = await runInVm(script, SCRIPT_TIMEOUT_MS, print);
  for (const complaint of result.complaints) console.log(complaint);
  return result.complaints.length > 0 ? 1 : result.status ?? 1;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
