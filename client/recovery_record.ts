/**
 * What the next daemon needs to go on where one was killed: the record of an attachment's session and device, in the runtime
 * directory. It has no secrets. Whoever serves the device, or takes it over, holds the record's lock.
 *
 * @module
 */
import * as v from "valibot";
import { Failure, messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import {
  type DaemonSelf,
  isRunning,
  recordOf,
  RecordSchema,
  removeIfThere,
  type RuntimeDirectory,
} from "../engine/control/runtime.ts";
import { CRYPTO_CHOICES } from "../engine/cryptography.ts";
import { Lock, OpenFlag } from "../ffi/constants.ts";
import { SystemError } from "../ffi/errno.ts";
import { close, flock, open } from "../ffi/libc.ts";
import { type Grant, IDENTITY_BYTES } from "../protocol/grant.ts";
import { LANES_MAX } from "../protocol/limits.ts";
import type { Patience } from "./patience.ts";

const log = logger("client");

/** Of the part that is only here; the records of daemons have a version of their own. */
const VERSION = 1;

const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const Positive = v.pipe(Count, v.minValue(1));
const Uint32 = v.pipe(Count, v.maxValue(0xffff_ffff));
const Port = v.pipe(Positive, v.maxValue(65535));
/** Bytes as hexadecimal digits. */
const Identity = v.pipe(
  v.string(),
  v.regex(new RegExp(`^[0-9a-f]{${2 * IDENTITY_BYTES}}$`), `${2 * IDENTITY_BYTES} hexadecimal digits`),
);

const AddressSchema = v.variant("family", [
  v.object({ family: v.literal("ipv4"), host: v.string(), port: Port }),
  v.object({ family: v.literal("ipv6"), host: v.string(), port: Port, scopeId: Uint32 }),
  v.object({ family: v.literal("unix"), path: v.string() }),
]);

const GrantSchema = v.object({
  size: Positive,
  logicalBlock: Positive,
  physicalBlock: Positive,
  optimalIo: Count,
  discardGranularity: Count,
  access: v.picklist([0, 1]),
  features: Count,
  slots: Positive,
  maxPayload: Positive,
  payloadBytes: Positive,
  leaseMs: Count,
  lanes: Positive,
  instance: Identity,
  durability: Identity,
  storage: Identity,
  writeEpoch: Count,
});

const PatienceSchema = v.object({
  resendMs: Positive,
  /** Null: for ever. */
  resends: v.nullable(Positive),
  connectMs: Positive,
  pingIdleMs: Positive,
  deadMs: Positive,
});

const RecoverySchema = v.object({
  version: v.literal(VERSION),
  /** The exporter, as it was named, and its export. */
  host: v.string(),
  port: Port,
  name: v.string(),
  session: Identity,
  /** How many lanes there are, each with a queue of the device at most. */
  lanes: v.pipe(Positive, v.maxValue(LANES_MAX)),
  /** No lane was joined with a higher one before the present daemon began. */
  generation: v.pipe(Uint32, v.minValue(1)),
  /** What the exporter has granted last, as far as what was acknowledged before is safe. */
  grant: GrantSchema,
  /** Where it was reached. */
  address: AddressSchema,
  /** The wire's numbers of what was agreed on. */
  cipher: Uint32,
  digest: Uint32,
  /** The key's file and its id, which is no secret. */
  key: v.nullable(v.object({ path: v.string(), id: Identity })),
  ciphers: v.array(v.string()),
  digests: v.array(v.string()),
  crypto: v.picklist(CRYPTO_CHOICES),
  depth: Positive,
  patience: PatienceSchema,
  /** Room for copies of what the exporter may lose with its memory; null: there are none. */
  replayBytes: v.nullable(Positive),
  /** Whom the driver may know as the server of the device. */
  servers: v.array(Positive),
  /** The device is being taken over: its queues may have servers or not. */
  isTaking: v.boolean(),
  /** Why writes fail for good, or null. */
  failure: v.nullable(v.string()),
});

/** What is recorded of a session and its device. */
export type Recovery = v.InferOutput<typeof RecoverySchema>;

const FileSchema = v.object({ ...RecordSchema.entries, recovery: RecoverySchema });

/** How a record is kept up to date by whoever serves the device. */
export class RecoveryKeeper {
  readonly #runtime: RuntimeDirectory;
  readonly #id: string;
  #lockFd: number;
  readonly #self: DaemonSelf;
  #recovery: Recovery;
  #written = "";

  private constructor(runtime: RuntimeDirectory, self: DaemonSelf, recovery: Recovery, lockFd: number) {
    this.#runtime = runtime;
    this.#id = self.id;
    this.#self = self;
    this.#recovery = recovery;
    this.#lockFd = lockFd;
  }

  /** What is recorded. */
  get recovery(): Recovery {
    return this.#recovery;
  }

  /**
   * Begins the record of a device that was just made; what was there of one with the same id is out of date.
   *
   * @throws {Error} when it cannot be written
   */
  static begin(runtime: RuntimeDirectory, self: DaemonSelf, recovery: Recovery): RecoveryKeeper {
    const keeper = new RecoveryKeeper(runtime, self, recovery, lock(runtime, self.id));
    try {
      keeper.#write();
    } catch (error) {
      keeper.remove();
      throw error;
    }
    return keeper;
  }

  /**
   * Takes the record of a daemon that is gone; it is as it was until {@link update}.
   *
   * @throws {Failure} when there is none, somebody else has it, or it makes no sense
   */
  static take(runtime: RuntimeDirectory, id: string): RecoveryKeeper {
    const lockFd = lock(runtime, id);
    try {
      const file = readFile(runtime.recoveryPath(id));
      if (isRunning(file)) throw servedBy(id, file.pid);
      const { recovery, kind, log, attachment, listening } = file;
      return new RecoveryKeeper(runtime, { kind, id, log, attachment, listening }, recovery, lockFd);
    } catch (error) {
      close(lockFd);
      throw error;
    }
  }

  /** Changes what is recorded, now or, where that fails, with the next change. The record is this process's from now on. */
  update(change: Partial<Recovery>): void {
    this.#recovery = { ...this.#recovery, ...change };
    try {
      this.#write();
    } catch (error) {
      log.warning("{text}", { text: `What --recover would need is out of date: ${messageOf(error)}` });
    }
  }

  /** As {@link update}, but a failure to write is the caller's. */
  mustUpdate(change: Partial<Recovery>): void {
    this.#recovery = { ...this.#recovery, ...change };
    this.#write();
  }

  /** The device is gone: there is nothing to recover. */
  remove(): void {
    removeIfThere(this.#runtime.recoveryPath(this.#id));
    removeIfThere(this.#runtime.recoveryLockPath(this.#id));
    this.release();
  }

  /** Leaves the record to the next one. */
  release(): void {
    if (this.#lockFd >= 0) close(this.#lockFd);
    this.#lockFd = -1;
  }

  #write(): void {
    const text = JSON.stringify(this.#recovery);
    if (text === this.#written) return;
    this.#runtime.write(this.#runtime.recoveryPath(this.#id), { ...recordOf(this.#self), recovery: this.#recovery });
    this.#written = text;
  }
}

/** The part of a {@link Recovery} that a grant is. */
export function recordedGrant(grant: Grant): Recovery["grant"] {
  const { identities, access, ...rest } = grant;
  const { instance, durability, storage, writeEpoch } = identities;
  return {
    ...rest,
    access: access === 0 ? 0 : 1,
    instance: instance.toHex(),
    durability: durability.toHex(),
    storage: storage.toHex(),
    writeEpoch,
  };
}

/** The part of a {@link Recovery} that a {@link Patience} is: JSON knows no infinity. */
export function recordedPatience(patience: Patience): Recovery["patience"] {
  return { ...patience, resends: patience.resends === Infinity ? null : patience.resends };
}

/** The patience that was recorded. */
export function patienceOf(recorded: Recovery["patience"]): Patience {
  return { ...recorded, resends: recorded.resends ?? Infinity };
}

/** The grant that was recorded. */
export function grantOf({ instance, durability, storage, writeEpoch, ...rest }: Recovery["grant"]): Grant {
  const identities = {
    instance: Uint8Array.fromHex(instance),
    durability: Uint8Array.fromHex(durability),
    storage: Uint8Array.fromHex(storage),
    writeEpoch,
  };
  return { ...rest, identities };
}

function readFile(path: string): v.InferOutput<typeof FileSchema> {
  let content: unknown;
  try {
    content = JSON.parse(Deno.readTextFileSync(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new Failure("there is nothing to recover: it was detached meanwhile");
    }
    throw new Failure(`the record ${path} cannot be read: ${messageOf(error)}`);
  }
  const result = v.safeParse(FileSchema, content);
  if (result.success) return result.output;
  const found = (content as { recovery?: { version?: unknown } } | null)?.recovery?.version;
  if (typeof found === "number" && found !== VERSION) {
    throw new Failure(`the record ${path} has version ${found}, and this program knows version ${VERSION}`);
  }
  const [issue] = result.issues;
  throw new Failure(`the record ${path} makes no sense at ${v.getDotPath(issue) ?? "its beginning"}: ${issue.message}`);
}

/** The descriptor that holds the lock. The kernel gives it back when the process ends, however that happens. */
function lock(runtime: RuntimeDirectory, id: string): number {
  const path = runtime.recoveryLockPath(id);
  for (;;) {
    const fd = open(path, OpenFlag.READ_WRITE | OpenFlag.CREATE, 0o600);
    if (fd < 0) throw new SystemError(`open ${path}`, fd);
    if (flock(fd, Lock.EXCLUSIVE | Lock.NONBLOCK) < 0) {
      close(fd);
      throw servedBy(id, holderOf(runtime, id));
    }
    // Whoever had it may have removed the file between the two.
    if (isFileOf(fd, path)) return fd;
    close(fd);
  }
}

function isFileOf(fd: number, path: string): boolean {
  try {
    return Deno.statSync(`/proc/self/fd/${fd}`).ino === Deno.lstatSync(path).ino;
  } catch {
    return false;
  }
}

/** The process that has written the record; null where that is not known. */
function holderOf(runtime: RuntimeDirectory, id: string): number | null {
  try {
    const file = readFile(runtime.recoveryPath(id));
    return isRunning(file) ? file.pid : null;
  } catch {
    return null;
  }
}

function servedBy(id: string, pid: number | null): Failure {
  const who = pid === null ? "another process" : `process ${pid}`;
  return new Failure(`${who} serves device ${id} or is taking it over at this moment (see dst status)`);
}
