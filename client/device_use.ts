/**
 * Who uses a block device: mounts, holders, swap, and processes that have it open.
 *
 * @module
 */
import { printable } from "../engine/control/printable.ts";
import { stat } from "../ffi/stat.ts";

/** Who uses a device. */
export interface DeviceUse {
  /** What the kernel does with it, for people: `mounted on /mnt`, `held by dm-0 (above)`, `used as swap`. */
  readonly kernel: readonly string[];
  /** Processes that have it open, for people: `sleep (pid 17)`. */
  readonly processes: readonly string[];
}

/** A device or a partition of it. */
interface Part {
  readonly path: string;
  /** As the kernel writes it: `259:0`. */
  readonly number: string;
}

/**
 * Finds who uses a device or a partition of it, this process aside. What it may not look at it cannot find.
 *
 * @param name the kernel's name of it: `ublkb0`
 */
export function findDeviceUse(name: string): DeviceUse {
  const parts = partsOf(name);
  return {
    kernel: [...mountsOf(parts), ...holdersOf(name, parts), ...swapsOf(parts)],
    processes: openersOf(parts),
  };
}

/** The mounts of these devices, as /proc/PID/mountinfo tells them (proc(5)). */
export function parseMounts(mountinfo: string, parts: readonly Part[]): string[] {
  const found: string[] = [];
  for (const line of mountinfo.split("\n")) {
    const fields = line.split(" ");
    const separator = fields.indexOf("-");
    if (separator < 0) continue;
    // Some filesystems (btrfs) have a number of their own: those are known by the path that was mounted.
    const source = unescape(fields[separator + 2] ?? "");
    if (parts.some(({ path, number }) => number === fields[2] || path === source)) {
      found.push(`mounted on ${printable(unescape(fields[4]))}`);
    }
  }
  return [...new Set(found)];
}

/** Undoes the octal escapes of spaces and the like in mountinfo. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(parseInt(digits, 8)));
}

function partsOf(name: string): Part[] {
  const parts: Part[] = [];
  const add = (folder: string, part: string) => {
    const number = read(`${folder}/dev`).trim();
    if (number !== "") parts.push({ path: `/dev/${part}`, number });
  };
  const folder = `/sys/block/${name}`;
  add(folder, name);
  for (const entry of list(folder)) if (entry.startsWith(`${name}p`)) add(`${folder}/${entry}`, entry);
  return parts;
}

/** Mounts in this namespace and in those of other processes, where they can be seen. */
function mountsOf(parts: readonly Part[]): string[] {
  const found = new Set(parseMounts(read("/proc/self/mountinfo"), parts));
  const namespaces = new Set([link("/proc/self/ns/mnt")]);
  for (const pid of processes()) {
    const namespace = link(`/proc/${pid}/ns/mnt`);
    if (namespace === "" || namespaces.has(namespace)) continue;
    namespaces.add(namespace);
    for (const mount of parseMounts(read(`/proc/${pid}/mountinfo`), parts)) {
      found.add(`${mount} (as process ${pid} sees it)`);
    }
  }
  return [...found];
}

function holdersOf(name: string, parts: readonly Part[]): string[] {
  const found: string[] = [];
  for (const { path } of parts) {
    const part = path.slice("/dev/".length);
    const folder = part === name ? `/sys/block/${name}` : `/sys/block/${name}/${part}`;
    for (const holder of list(`${folder}/holders`)) {
      const mapped = read(`/sys/block/${holder}/dm/name`).trim();
      found.push(`held by ${holder}${mapped === "" ? "" : ` (${printable(mapped)})`}`);
    }
  }
  return found;
}

function swapsOf(parts: readonly Part[]): string[] {
  const lines = read("/proc/swaps").split("\n").slice(1);
  const used = lines.map((line) => unescape(line.split(/\s/)[0]));
  return parts.filter(({ path }) => used.includes(path)).map(({ path }) => `used as swap (${path})`);
}

function openersOf(parts: readonly Part[]): string[] {
  const found: string[] = [];
  for (const pid of processes()) {
    const opens = list(`/proc/${pid}/fd`).some((fd) => isOneOf(`/proc/${pid}/fd/${fd}`, parts));
    if (opens) found.push(`${printable(read(`/proc/${pid}/comm`).trim())} (pid ${pid})`);
  }
  return found;
}

/** Whether an open file is one of the devices, under whatever name it was opened. */
function isOneOf(file: string, parts: readonly Part[]): boolean {
  // Device nodes lie in /dev; anything else is not looked at, since that could wait for a dead network filesystem.
  if (!link(file).startsWith("/dev/")) return false;
  try {
    const { kind, targetMajor, targetMinor } = stat(file);
    return kind === "block" && parts.some(({ number }) => number === `${targetMajor}:${targetMinor}`);
  } catch {
    return false;
  }
}

function processes(): string[] {
  return list("/proc").filter((entry) => /^\d+$/.test(entry) && entry !== String(Deno.pid));
}

// Processes and devices come and go while they are looked at: what is gone is nothing.

function list(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

function link(path: string): string {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return "";
  }
}
