/**
 * An exporter as a process of its own, serving what the suite needs from one kind of disk.
 *
 * @module
 */
import { DaemonChild } from "../../engine/control/child.ts";
import { makeKey, writeKeyFile } from "./keys.ts";
import { BIG_BYTES, DISK_BYTES, FAILING_BYTES, SLOW_MS, SMALL_BYTES, STALLED_MS, type Target } from "./suite.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;

/** The names of ciphers and digests; their places are their numbers (SPEC.md, section 2). */
export const CIPHER_NAMES = ["none", "chacha20-poly1305", "aes-256-gcm"];
export const DIGEST_NAMES = ["none", "crc32c", "xxh64", "blake2b-256", "hmac-sha256"];

/** What the disks are. */
export type Backend = "memory" | "tmpfs" | "file" | "direct" | "block";

/** How the exporter is to be run. */
export interface ProcessOptions {
  readonly loop: "uring" | "poll";
  readonly backend: Backend;
  /** Whether it asks for a key. */
  readonly keyed: boolean;
  /** Whose ciphers and digests it takes. */
  readonly crypto: "auto" | "wasm" | "openssl";
  /** Data-path Workers. */
  readonly workers: number;
  /** Further exports of memory, by name. */
  readonly more?: readonly string[];
  /** Flags of V8. */
  readonly v8Flags?: string;
}

interface Disk {
  readonly name: string;
  readonly bytes: number;
  readonly settings?: Record<string, unknown>;
}

/** The names of the keys, as `TargetKeys` has them. */
const KEY_NAMES = ["main", "second", "reader", "idle"] as const;
/** Who may use an export that says nothing else. */
const PERMISSIONS = { main: "read-write", second: "read-write" };
const DISK_PERMISSIONS = { ...PERMISSIONS, reader: "read" };
/** The suite attempts thousands of times what is forbidden, and one exporter's limits must not be another one's tests. */
const LIMITS = { attempts_burst: 1_000_000, attempts_per_minute: 1_000_000 };

const FAIL = `offset=0,length=${FAILING_BYTES}`;
const DISKS: readonly Disk[] = [
  { name: "disk", bytes: DISK_BYTES },
  { name: "big", bytes: BIG_BYTES },
  { name: "read-only", bytes: SMALL_BYTES, settings: { read_only: true } },
  { name: "shared", bytes: SMALL_BYTES, settings: { shared: true } },
  { name: "slow", bytes: SMALL_BYTES, settings: { layers: [`delay:write=${SLOW_MS}`] } },
  { name: "stalled", bytes: SMALL_BYTES, settings: { layers: [`delay:${STALLED_MS}`] } },
  {
    name: "failing",
    bytes: SMALL_BYTES,
    settings: { layers: [`error:write,${FAIL},errno=ENOSPC`, `error:read,${FAIL},errno=EIO`] },
  },
];

/** Where disks of this kind can be made, or null: this machine has no such place. */
function placeFor(backend: Backend): string | null {
  const candidates = backend === "tmpfs" ? ["/dev/shm"] : ["/var/tmp", Deno.cwd()];
  for (const place of candidates) {
    const type = runLine("stat", "-f", "-c", "%T", place);
    if (type !== null && (type === "tmpfs") === (backend === "tmpfs")) return place;
  }
  return null;
}

/** Why this machine cannot serve such disks, or null: it can. */
export function lacks(backend: Backend): string | null {
  if (backend === "memory") return null;
  if (placeFor(backend) === null) return `there is no ${backend === "tmpfs" ? "tmpfs" : "disk"} to make files on`;
  if (backend !== "block") return null;
  if (Deno.uid() !== 0) return "loop devices can be made by root only";
  return runLine("losetup", "--find") === null ? "this kernel has no loop devices" : null;
}

/** Starts an exporter on a free port. */
export async function startProcess(options: ProcessOptions): Promise<Target & { readonly pid: number }> {
  const keys = options.keyed ? { main: makeKey(), second: makeKey(), reader: makeKey(), idle: makeKey() } : null;
  const folder = Deno.makeTempDirSync({ prefix: "dst-suite-" });
  const place = options.backend === "memory" ? folder : placeFor(options.backend)!;
  const disks = options.backend === "memory" ? folder : Deno.makeTempDirSync({ prefix: "dst-suite-", dir: place });
  const devices: string[] = [];
  const giveBack = () => {
    for (const device of devices) runLine("losetup", "--detach", device);
    for (const path of new Set([folder, disks])) Deno.removeSync(path, { recursive: true });
  };
  try {
    const sections = DISKS.map(({ name, bytes, settings }) => {
      let path = `mem:${bytes}`;
      if (options.backend !== "memory") {
        path = `${disks}/${name}`;
        Deno.writeFileSync(path, new Uint8Array(0));
        Deno.truncateSync(path, bytes);
      }
      if (options.backend === "block") {
        const device = runLine("losetup", "--find", "--show", path);
        if (device === null) throw new Error(`Cannot make a loop device of ${path}`);
        devices.push(device);
        path = device;
      }
      const isDirect = options.backend === "direct" ? { direct: true } : {};
      const permissions = name === "disk" ? DISK_PERMISSIONS : PERMISSIONS;
      return section("[exports]", { name, path, ...isDirect, ...settings }, keys === null ? {} : permissions);
    });
    for (const name of options.more ?? []) {
      sections.push(section("[exports]", { name, path: "mem:4096" }, keys === null ? {} : PERMISSIONS));
    }
    sections.unshift(section("limits", LIMITS));
    if (keys !== null) {
      for (const name of KEY_NAMES) {
        const file = `${folder}/${name}.key`;
        writeKeyFile(file, name, keys[name]);
        sections.push(section("[keys]", { file }));
      }
    }
    Deno.writeTextFileSync(`${folder}/exporter.toml`, sections.join("\n"));
    const flags = options.v8Flags === undefined ? [] : [`--v8-flags=${options.v8Flags}`];
    const { ciphers, digests } = accepted(options);
    const args = ["export", "--config", `${folder}/exporter.toml`, "--listen", "127.0.0.1:0"];
    args.push("--cipher", ciphers.join(","), "--digest", digests.join(","), "--crypto", options.crypto);
    args.push("--workers", `${options.workers}`, "--state-dir", `${folder}/state`, "--loop", options.loop);
    const daemon = new DaemonChild(args, {
      program: ["run", "--quiet", ...flags, "-A", MAIN],
      env: { DST_RUNTIME_DIR: `${folder}/run` },
    });
    const { address } = await daemon.waitFor("listening");
    const { hostname, port } = new URL(`tcp://${address}`);
    return {
      host: hostname,
      port: Number(port),
      pid: daemon.pid,
      names: [...DISKS.map(({ name }) => name), ...options.more ?? []],
      keys,
      ciphers: ciphers.map((name) => CIPHER_NAMES.indexOf(name)),
      digests: digests.map((name) => DIGEST_NAMES.indexOf(name)),
      exports: {
        disk: "disk",
        big: "big",
        readOnly: "read-only",
        shared: "shared",
        slow: "slow",
        stalled: "stalled",
        failing: "failing",
      },
      async stop() {
        const { code, stderr } = await daemon.stop();
        giveBack();
        if (code !== 0) throw new Error(`The exporter ended with code ${code}: ${stderr}`);
      },
    };
  } catch (error) {
    giveBack();
    throw error;
  }
}

/** All that the exporter can accept, by name. AES is OpenSSL's alone. */
function accepted({ keyed, crypto }: ProcessOptions): { ciphers: string[]; digests: string[] } {
  if (!keyed) return { ciphers: ["none"], digests: ["xxh64", "crc32c", "blake2b-256", "none"] };
  const ciphers = CIPHER_NAMES.toReversed().filter((name) => name !== "aes-256-gcm" || crypto !== "wasm");
  return { ciphers, digests: ["blake2b-256", "hmac-sha256"] };
}

/** A section of the configuration. JSON's texts, numbers, flags and lists of texts are TOML's too. */
function section(name: string, settings: Record<string, unknown>, permissions: Record<string, string> = {}): string {
  const lines = (entries: Record<string, unknown>) =>
    Object.entries(entries).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  const granted = Object.keys(permissions).length > 0 ? ["[exports.permissions]", ...lines(permissions)] : [];
  return [`[${name}]`, ...lines(settings), ...granted, ""].join("\n");
}

/** What a program printed, or null when it failed or is not there. */
function runLine(program: string, ...args: string[]): string | null {
  try {
    const { success, stdout } = new Deno.Command(program, { args, stderr: "null" }).outputSync();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch {
    return null;
  }
}
