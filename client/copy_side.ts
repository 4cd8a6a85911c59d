/**
 * The two sides of a copy: a disk here or behind an exporter, and what is left of a file beyond its last whole block.
 *
 * @module
 */
import type { BlockDevice } from "../engine/block.ts";
import type { RemoteAddress } from "../engine/control/address.ts";
import { cipherName, digestName } from "../engine/control/algorithms.ts";
import type { Provider } from "../engine/cryptography.ts";
import type { Engine } from "../engine/engine.ts";
import { Lock, OpenFlag } from "../ffi/constants.ts";
import { check, Errno, errnoMessage } from "../ffi/errno.ts";
import { close, flock, ftruncate, open } from "../ffi/libc.ts";
import { fstat } from "../ffi/stat.ts";
import type { Connector } from "./connector.ts";
import { unlessInterrupted } from "./interrupt.ts";
import { turnUntil } from "./local_engine.ts";
import { nameOfRemote, type OpenedSession, openSession, resolveTarget } from "./open.ts";
import type { SessionOptions } from "./options.ts";

/** A file or block device of this machine as a block device of the engine. */
export interface LocalDisk {
  readonly device: BlockDevice;
  /** Gives everything back. No request is under way. */
  close(): void;
}

/**
 * Opens a local disk. Whoever starts a copy provides this: disks are the exporter's business.
 *
 * @throws {Error} one line that says what could not be opened and why
 */
export type OpenLocal = (path: string, write: boolean, engine: Engine) => LocalDisk;

/** How what goes over the wire is protected, and who does that. */
export interface Protection {
  /** Names of the cipher and the digest that were agreed on; the digest is `none` with a cipher. */
  readonly cipher: string;
  readonly digest: string;
  readonly crypto: Provider;
}

/** One side of a copy. */
export interface Side {
  /** For messages. */
  readonly name: string;
  /** In bytes; those of a file need be no whole blocks. */
  readonly size: number;
  /** Null for a file of less than a block. */
  readonly device: BlockDevice | null;
  /** Where it is a regular file, its path: bytes beyond the last whole block are read and written there. */
  readonly path: string | null;
  /** Reads as zeroes wherever nothing was written by this copy. */
  readonly isFresh: boolean;
  /** How an export is spoken to; null for what is on this machine. */
  readonly protection: Protection | null;
  /** Why requests fail for good, or null. */
  failure(): string | null;
  /** Gives everything back. No request is under way. */
  close(): Promise<void>;
}

/** Opens an export. */
export async function openRemoteSide(
  connector: Connector,
  remote: RemoteAddress,
  write: boolean,
  options: SessionOptions,
  signal: AbortSignal,
): Promise<Side> {
  const { engine } = connector;
  const name = nameOfRemote(remote);
  let opened: OpenedSession | null = null;
  let reason: string | null = null;
  try {
    const target = await unlessInterrupted(resolveTarget(remote, options), signal);
    const { depth, holder } = options;
    openSession(
      connector,
      { target, name: remote.name, readOnly: !write, steal: false, depth, holder },
      // What is under way fails then, and says so.
      { onLost: () => {}, onShuttingDown: () => {}, onResized: () => {} },
      (result) => opened = result,
      (text) => reason = text,
    );
  } catch (error) {
    signal.throwIfAborted();
    reason = (error as Error).message;
  }
  await turnUntil(engine, () => opened !== null || reason !== null, signal);
  if (reason !== null) throw new Error(`Cannot open ${name}: ${reason}`);
  const { session: device, cipher, digest } = opened! as OpenedSession;
  return {
    name,
    size: device.geometry.size,
    device,
    path: null,
    isFresh: false,
    protection: {
      cipher: cipherName(cipher),
      digest: digestName(digest),
      crypto: engine.cryptography.providerOf(cipher, digest),
    },
    failure: () => device.failure,
    close: async () => {
      let isLeft = false;
      if (device.inFlight === 0) device.leave(() => isLeft = true);
      else isLeft = true;
      await turnUntil(engine, () => isLeft);
      device.close();
    },
  };
}

/** Opens a file or block device to copy from. */
export function openLocalSource(path: string, engine: Engine, openLocal: OpenLocal): Side {
  const { size, isFile } = examine(path);
  return localSide(path, isFile ? size : -1, isFile, false, engine, openLocal, false);
}

/** Opens a block device that is there, or null: then the path is, or is to be, a file. */
export function openLocalDevice(path: string, engine: Engine, openLocal: OpenLocal): Side | null {
  try {
    if (!Deno.statSync(path).isBlockDevice) return null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new Error(`Cannot open ${path}: ${(error as Error).message}`);
  }
  return localSide(path, -1, false, false, engine, openLocal, true);
}

/** Makes a file of that size, or replaces what it has, so that it is all hole. */
export function openLocalFile(path: string, size: number, engine: Engine, openLocal: OpenLocal): Side {
  emptyFile(path, size);
  return localSide(path, size, true, true, engine, openLocal, true);
}

/**
 * Makes a file, or empties one, and gives it a size.
 *
 * @throws {Error} also when somebody has locked it: an exporter, or another copy
 */
export function emptyFile(path: string, size: number): void {
  const fd = open(path, OpenFlag.READ_WRITE | OpenFlag.CREATE);
  if (fd < 0) throw new Error(`Cannot write ${path}: ${errnoMessage(fd)}`);
  try {
    if (fstat(fd).kind !== "file") throw new Error(`Cannot write ${path}: it is neither a file nor a block device`);
    const locked = flock(fd, Lock.EXCLUSIVE | Lock.NONBLOCK);
    if (locked === -Errno.EAGAIN) throw new Error(`Cannot write ${path}: it is exported or copied by another process`);
    check(locked, `lock ${path}`);
    check(ftruncate(fd, 0), `empty ${path}`);
    check(ftruncate(fd, size), `give ${path} a size of ${size} bytes`);
  } finally {
    close(fd);
  }
}

/** Whether two paths are one file. */
export function isSameFile(left: string, right: string): boolean {
  try {
    const [a, b] = [Deno.statSync(left), Deno.statSync(right)];
    return a.dev === b.dev && a.ino === b.ino;
  } catch {
    return false;
  }
}

function examine(path: string): { size: number; isFile: boolean } {
  try {
    const { size, isFile, isBlockDevice, isDirectory } = Deno.statSync(path);
    if (isDirectory) throw new Error("it is a directory");
    if (!isFile && !isBlockDevice) throw new Error("it is neither a file nor a block device");
    return { size, isFile };
  } catch (error) {
    const isMissing = error instanceof Deno.errors.NotFound;
    throw new Error(`Cannot open ${path}: ${isMissing ? "no such file or directory" : (error as Error).message}`);
  }
}

/** @param size of a file in bytes; -1: the device tells */
function localSide(
  path: string,
  size: number,
  isFile: boolean,
  isFresh: boolean,
  engine: Engine,
  openLocal: OpenLocal,
  write: boolean,
): Side {
  // A file's last bytes may be no whole block: with less than one there is no disk.
  const disk = isFile && size < FILE_BLOCK_BYTES ? null : openLocal(path, write, engine);
  return {
    name: path,
    size: isFile ? size : disk!.device.geometry.size,
    device: disk?.device ?? null,
    path: isFile ? path : null,
    isFresh,
    protection: null,
    failure: () => null,
    close: () => Promise.resolve(disk?.close()),
  };
}

/** The logical block of a file as a disk. */
const FILE_BLOCK_BYTES = 512;
