/**
 * What the tests need from the machine besides Deno: finds it, installs it with apt-get when the user is root, and says
 * exactly what to install otherwise.
 *
 * @module
 */

/** A piece of the machine that some stage of the tests needs. */
export interface Requirement {
  /** The Debian package. */
  readonly package: string;
  /** A program that the package brings. */
  readonly program: string;
  /** It is only unpacked, into the cache folder: installed, it would do more to the machine than a test may. */
  readonly unpacked?: boolean;
}

/** Every Debian package that the tests use, with the program by which its presence is known. */
export const REQUIREMENTS: readonly Requirement[] = [
  { package: "qemu-system-x86", program: "qemu-system-x86_64" },
  { package: "qemu-utils", program: "qemu-img" },
  { package: "busybox-static", program: "busybox" },
  { package: "cpio", program: "cpio" },
  { package: "xz-utils", program: "xz" },
  { package: "kmod", program: "depmod" },
  { package: "util-linux", program: "losetup" },
  { package: "bsdutils", program: "script" },
  { package: "mount", program: "mount" },
  { package: "fdisk", program: "sfdisk" },
  { package: "dmsetup", program: "dmsetup" },
  { package: "e2fsprogs", program: "mkfs.ext4" },
  { package: "xfsprogs", program: "mkfs.xfs" },
  { package: "iproute2", program: "tc" },
  { package: "procps", program: "sysctl" },
  { package: "fio", program: "fio" },
  { package: "nbdkit", program: "nbdkit" },
  { package: "nbd-client", program: "nbd-client" },
  { package: "libnbd-bin", program: "nbdcopy" },
  // It would bring udev along, look for arrays, and watch them.
  { package: "mdadm", program: "mdadm", unpacked: true },
];

/** An unpacked kernel package. */
export interface Kernel {
  /** As `uname -r` says it: `6.12.117+deb12-amd64`. */
  readonly release: string;
  /** The folder that holds `boot/` and `lib/modules/`, an absolute path. */
  readonly root: string;
}

/** Folders for administrators' programs, which a user's PATH often lacks. */
const ADMINISTRATOR_FOLDERS = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/** The kernels that will do: the first series of Debian's with `ublk_drv`, in the plain flavour. */
const KERNEL_PACKAGE = /^linux-image-(6\.12\.\d+\+deb\d+-amd64)$/;

/** PATH with the folders of administrators' programs and of what is unpacked appended; to look up, and for children. */
export function searchPath(): string {
  const unpacked = REQUIREMENTS.filter((requirement) => requirement.unpacked).map((requirement) =>
    `${unpackedFolder(requirement)}/sbin`
  );
  return [...(Deno.env.get("PATH") ?? "/usr/bin:/bin").split(":"), ...ADMINISTRATOR_FOLDERS, ...unpacked].join(":");
}

/** Where a package is unpacked to. */
function unpackedFolder(requirement: Requirement): string {
  return `${cacheFolder()}/packages/${requirement.package}`;
}

/** The absolute path of a program, or null when there is none. */
export function findProgram(name: string): string | null {
  for (const folder of searchPath().split(":")) {
    try {
      const path = `${folder}/${name}`;
      const info = Deno.statSync(path);
      if (info.isFile && ((info.mode ?? 0) & 0o111) !== 0) return path;
    } catch {
      // Not in this folder.
    }
  }
  return null;
}

/** Those of {@link REQUIREMENTS} that are not there. */
export function missingRequirements(): Requirement[] {
  return REQUIREMENTS.filter((requirement) => findProgram(requirement.program) === null);
}

/**
 * Makes the requirements be there: as root by apt-get, otherwise only those that need not be installed.
 *
 * @returns the packages that are still missing, by name
 */
export async function ensurePackages(): Promise<string[]> {
  const missing = findProgram("apt-get") === null ? [] : missingRequirements();
  const packages = missing.filter((requirement) => !requirement.unpacked).map((requirement) => requirement.package);
  if (packages.length > 0 && Deno.uid() === 0) {
    console.log(`installing ${packages.join(" ")}`);
    await updateOnce();
    await aptGet(["install", "-y", "--no-install-recommends", ...packages]);
  }
  for (const requirement of missing.filter((requirement) => requirement.unpacked)) {
    await unpack(requirement.package, unpackedFolder(requirement)).catch((error: Error) => console.log(error.message));
  }
  return missingRequirements().map((requirement) => requirement.package);
}

/**
 * The newest unpacked kernel of the cache folder; when there is none, the newest package of the Debian suites that are
 * set up on this machine, downloaded and unpacked (not installed, so this needs no root).
 *
 * @throws Error that says why there is no kernel
 */
export async function ensureKernel(): Promise<Kernel> {
  const folder = `${cacheFolder()}/kernel`;
  const cached = newestRelease(listFolder(folder));
  if (cached !== null) return { release: cached, root: `${folder}/${cached}` };
  if (findProgram("apt-get") === null) throw new Error("Cannot get a kernel for the VM: there is no apt-get here");
  let release = await newestOffered();
  if (release === null) {
    await updateOnce();
    release = await newestOffered();
  }
  if (release === null) {
    throw new Error(
      "Cannot get a kernel for the VM: apt knows no linux-image-6.12.*-amd64 (Debian 12 has it in bookworm-security); " +
        "add the suite and run apt-get update",
    );
  }
  const root = `${folder}/${release}`;
  await unpack(`linux-image-${release}`, root, (root) => mustSucceed("depmod", ["-b", root, release]));
  return { release, root };
}

/**
 * Downloads a package and unpacks it, which needs no root.
 *
 * @param to the folder that it becomes, where nothing is yet
 * @param finish what is still to be done to the unpacked folder, by its path
 * @throws Error when it cannot be had
 */
async function unpack(name: string, to: string, finish: (root: string) => Promise<void> = async () => {}) {
  const folder = to.replace(/\/[^/]*$/, "");
  Deno.mkdirSync(folder, { recursive: true });
  // Unpacked beside its final place and then renamed, so that a run that was cut short leaves nothing half there.
  const work = Deno.makeTempDirSync({ dir: folder, prefix: ".unpack-" });
  try {
    console.log(`downloading ${name}`);
    if (!(await succeeds("apt-get", ["download", name], work))) {
      // The lists may be older than what the mirror still carries.
      await updateOnce();
      await aptGet(["download", name], work);
    }
    const archive = listFolder(work).find((name) => name.endsWith(".deb"));
    if (archive === undefined) throw new Error(`Cannot go on: apt-get download left no package ${name}`);
    await mustSucceed("dpkg", ["-x", archive, "root"], work);
    await finish(`${work}/root`);
    Deno.renameSync(`${work}/root`, to);
  } finally {
    Deno.removeSync(work, { recursive: true });
  }
}

/** The highest of the kernel releases among the names, others being passed over; null when there is none. */
export function newestRelease(names: Iterable<string>): string | null {
  let newest: string | null = null;
  for (const name of names) {
    if (!KERNEL_PACKAGE.test(`linux-image-${name}`)) continue;
    if (newest === null || name.localeCompare(newest, "en", { numeric: true }) > 0) newest = name;
  }
  return newest;
}

/** Where the tests keep what they have downloaded: `$XDG_CACHE_HOME/dst`, or `~/.cache/dst`. */
export function cacheFolder(): string {
  return `${Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME") ?? "/root"}/.cache`}/dst`;
}

/** What apt offers as the newest kernel release, null when it knows none. */
async function newestOffered(): Promise<string | null> {
  const output = await new Deno.Command("apt-cache", { args: ["search", "--names-only", "^linux-image-6\\.12\\."] })
    .output();
  const names = new TextDecoder().decode(output.stdout).split("\n").map((line) => line.split(" ")[0]);
  return newestRelease(names.flatMap((name) => KERNEL_PACKAGE.exec(name)?.[1] ?? []));
}

let updated = false;

/** `apt-get update`, once a run, as root; a user without rights works with the lists that are there. */
async function updateOnce(): Promise<void> {
  if (updated || Deno.uid() !== 0) return;
  updated = true;
  await aptGet(["update", "-qq"]);
}

async function aptGet(args: string[], cwd?: string): Promise<void> {
  // Without a front-end no package asks a question; the lock is waited for, as a fresh machine may still be updating.
  await mustSucceed("apt-get", ["-q", "-o", "DPkg::Lock::Timeout=120", ...args], cwd);
}

async function mustSucceed(program: string, args: string[], cwd?: string): Promise<void> {
  if (!(await succeeds(program, args, cwd))) throw new Error(`Cannot go on: ${program} ${args.join(" ")} failed`);
}

async function succeeds(program: string, args: string[], cwd?: string): Promise<boolean> {
  const env = { PATH: searchPath(), DEBIAN_FRONTEND: "noninteractive" };
  const child = new Deno.Command(program, { args, cwd, env, stdin: "null", stdout: "inherit", stderr: "inherit" });
  return (await child.spawn().status).success;
}

function listFolder(path: string): string[] {
  try {
    return [...Deno.readDirSync(path)].map((entry) => entry.name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
