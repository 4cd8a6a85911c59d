/**
 * The runtime directory: a record of every daemon that runs on this machine, and its control socket.
 *
 * @module
 */
import * as v from "valibot";
import { Failure, messageOf } from "./failure.ts";

/** What a daemon is. */
export type DaemonKind = "attach" | "export";

/** Where an exporter listens. */
const ListeningSchema = v.object({ protocol: v.picklist(["dst", "nbd"]), address: v.string() });

/** Of a {@link DaemonRecord}; what else is in a file is passed over. */
export const RecordSchema = v.object({
  version: v.literal(1),
  kind: v.picklist(["attach", "export"]),
  /** Names the daemon among those of its kind. */
  id: v.string(),
  pid: v.number(),
  /** When the process started, in clock ticks since the boot: tells it from a later one with the same pid. */
  processStart: v.string(),
  /** Of the boot in which it started. */
  bootId: v.string(),
  /** ISO 8601. */
  startedAt: v.string(),
  /** The log file of a daemon in the background. */
  log: v.nullable(v.string()),
  attachment: v.nullable(v.object({
    /** `HOST:PORT/NAME`. */
    remote: v.string(),
    device: v.nullable(v.string()),
    nbd: v.nullable(v.string()),
    /** In bytes. */
    size: v.number(),
    readOnly: v.boolean(),
  })),
  listening: v.array(ListeningSchema),
});

/** The record of one daemon. */
export type DaemonRecord = v.InferOutput<typeof RecordSchema>;

/** What a daemon says of itself to {@link RuntimeDirectory.register}. */
export type DaemonSelf = Omit<DaemonRecord, "version" | "pid" | "processStart" | "bootId" | "startedAt">;

/** `sun_path` of `struct sockaddr_un` in linux/un.h, without its zero. */
const SOCKET_PATH_BYTES_MAX = 107;
/** Room for the longest file name in the directory: `attach-` or `export-`, 20 digits, `.sock`. */
const FILE_NAME_BYTES_MAX = 40;
const BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id";

/** The directory in which the daemons of one user tell of themselves. */
export class RuntimeDirectory {
  private constructor(readonly path: string) {}

  /**
   * Opens the directory of this user, and makes it when it is missing: `$DST_RUNTIME_DIR`, or `/run/dst` for root,
   * otherwise `$XDG_RUNTIME_DIR/dst` or `/tmp/dst-UID`.
   *
   * @throws {Failure} when it cannot be made, or is somebody else's to write
   */
  static open(path: string = defaultPath()): RuntimeDirectory {
    if (new TextEncoder().encode(path).length + 1 + FILE_NAME_BYTES_MAX > SOCKET_PATH_BYTES_MAX) {
      throw new Failure(`Cannot use the runtime directory ${path}: its path is too long for a unix socket`);
    }
    try {
      Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) {
        throw new Failure(`Cannot make the runtime directory ${path}: ${(error as Error).message}`);
      }
    }
    const info = Deno.lstatSync(path);
    // Below /tmp anybody may have made it first: whoever owns the directory controls the daemons.
    if (!info.isDirectory || info.uid !== Deno.uid() || ((info.mode ?? 0) & 0o022) !== 0) {
      throw new Failure(
        `Cannot use the runtime directory ${path}: it must be a directory that only its user may write`,
      );
    }
    Deno.chmodSync(path, 0o700);
    return new RuntimeDirectory(path);
  }

  /** Where the control socket of a daemon is. */
  socketPath(kind: DaemonKind, id: string): string {
    return `${this.path}/${fileName(kind, id)}.sock`;
  }

  /** Where a daemon in the background logs to, where nothing else was asked for. */
  logPath(kind: DaemonKind, pid: number): string {
    return `${this.path}/${kind}-pid${pid}.log`;
  }

  /**
   * Writes the record of this process, whole or not at all.
   *
   * @throws {Failure} when it cannot be written
   */
  register(self: DaemonSelf): DaemonRecord {
    const record = recordOf(self);
    this.write(this.#recordPath(self.kind, self.id), record);
    return record;
  }

  /**
   * Writes a file of this directory as JSON that only its user may read, whole or not at all.
   *
   * @throws {Failure} when it cannot be written
   */
  write(path: string, value: unknown): void {
    const temporary = `${path}.${Deno.pid}.tmp`;
    try {
      Deno.writeTextFileSync(temporary, JSON.stringify(value) + "\n", { mode: 0o600 });
      Deno.renameSync(temporary, path);
    } catch (error) {
      removeIfThere(temporary);
      throw new Failure(`Cannot write to the runtime directory ${this.path}: ${messageOf(error)}`);
    }
  }

  /** Where a daemon keeps what another one needs to take its device over: a {@link DaemonRecord} and more. */
  recoveryPath(id: string): string {
    return `${this.path}/${fileName("recovery", id)}.json`;
  }

  /** What whoever writes there holds locked. */
  recoveryLockPath(id: string): string {
    return `${this.path}/${fileName("recovery", id)}.lock`;
  }

  /**
   * The attachments whose daemon is gone, though nobody has detached them: their devices wait for another daemon. Sorted
   * by id. The records of devices that are gone too are removed.
   */
  waiting(): DaemonRecord[] {
    const records: DaemonRecord[] = [];
    for (const { name } of Deno.readDirSync(this.path)) {
      if (!/^recovery-.*\.json$/.test(name)) continue;
      const record = readRecord(`${this.path}/${name}`);
      if (record === null || isRunning(record)) continue;
      if (record.bootId === bootId() && isThere(record.attachment?.device?.replace("ublkb", "ublkc"))) {
        records.push(record);
      } else {
        removeIfThere(this.recoveryPath(record.id));
        removeIfThere(this.recoveryLockPath(record.id));
      }
    }
    return records.sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }));
  }

  /** Removes the record and the socket of a daemon. */
  unregister(kind: DaemonKind, id: string): void {
    removeIfThere(this.#recordPath(kind, id));
    removeIfThere(this.socketPath(kind, id));
  }

  /**
   * The records of all daemons that run, sorted by kind and id. Those of processes that are gone are removed, with
   * their sockets; what cannot be read is passed over.
   */
  list(): DaemonRecord[] {
    const records: DaemonRecord[] = [];
    for (const { name } of Deno.readDirSync(this.path)) {
      if (!/^(attach|export)-.*\.json$/.test(name)) continue;
      const record = readRecord(`${this.path}/${name}`);
      if (record === null) continue;
      if (isRunning(record)) records.push(record);
      else this.unregister(record.kind, record.id);
    }
    const key = (record: DaemonRecord) => `${record.kind} ${record.id}`;
    return records.sort((a, b) => key(a).localeCompare(key(b), "en", { numeric: true }));
  }

  #recordPath(kind: DaemonKind, id: string): string {
    return `${this.path}/${fileName(kind, id)}.json`;
  }
}

/** The record of this process. */
export function recordOf(self: DaemonSelf): DaemonRecord {
  return {
    version: 1,
    ...self,
    pid: Deno.pid,
    processStart: processStartOf(Deno.pid) ?? "",
    bootId: bootId(),
    startedAt: new Date().toISOString(),
  };
}

/** Whether the process that wrote the record still runs. */
export function isRunning(record: Pick<DaemonRecord, "pid" | "processStart" | "bootId">): boolean {
  return record.bootId === bootId() && processStartOf(record.pid) === record.processStart;
}

/**
 * When a process started, in clock ticks since the boot: field 22 of /proc/PID/stat, see proc(5).
 *
 * @returns null when there is no such process, or only its exit status is left
 */
export function processStartOf(pid: number): string | null {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    // The second field is the program's name in parentheses, and may itself contain any of them.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state, start] = [fields[0], fields[19]];
    return state === "Z" || state === "X" ? null : start;
  } catch (error) {
    // Reading the file of a process that ends just now fails with ESRCH.
    if (error instanceof Deno.errors.NotFound || (error as { code?: unknown }).code === "ESRCH") return null;
    throw error;
  }
}

function bootId(): string {
  return Deno.readTextFileSync(BOOT_ID_PATH).trim();
}

function defaultPath(): string {
  const asked = Deno.env.get("DST_RUNTIME_DIR");
  if (asked) return asked;
  if (Deno.uid() === 0) return "/run/dst";
  const session = Deno.env.get("XDG_RUNTIME_DIR");
  return session ? `${session}/dst` : `/tmp/dst-${Deno.uid()}`;
}

function isThere(path: string | undefined): boolean {
  if (path === undefined) return false;
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

function fileName(kind: DaemonKind | "recovery", id: string): string {
  const name = `${kind}-${id.replace(/[^A-Za-z0-9._-]/g, "_")}`;
  if (name.length + ".json".length > FILE_NAME_BYTES_MAX) throw new RangeError(`The id "${id}" is too long`);
  return name;
}

function readRecord(path: string): DaemonRecord | null {
  try {
    const result = v.safeParse(RecordSchema, JSON.parse(Deno.readTextFileSync(path)));
    return result.success ? result.output : null;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Removes a file; it is no error when it is gone already. */
export function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
