/**
 * What an exporter must remember across its restarts: each disk's storage identity, and who wrote to it last.
 *
 * One small file a disk in the state directory, replaced atomically and synced.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import * as v from "valibot";
import { removeIfThere } from "../engine/control/runtime.ts";

/** A disk's record. */
export interface DiskRecord {
  /** Names the disk by what makes it this one: device, inode, time of birth. */
  readonly fingerprint: string;
  /** 32 hexadecimal digits; drawn when the disk is seen first. */
  readonly storage: string;
  /** Grows whenever another session is granted read-write. A safe integer. */
  readonly writeEpoch: number;
  /** How often its stable storage has failed: what was acknowledged before may be lost for whoever comes after. */
  readonly failures: number;
  /** The session that was granted it last, 32 hexadecimal digits, or "" for none. */
  readonly session: string;
}

const hex16 = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/));
const recordSchema = v.object({
  fingerprint: v.string(),
  storage: hex16,
  writeEpoch: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  // Records of before there was such a count have none.
  failures: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0)), 0),
  session: v.union([v.literal(""), hex16]),
});

/** Where an exporter's records are. */
export type DiskRecords = Pick<StateDirectory, "load" | "save">;

/** The records of one exporter. Blocking: used by the door, never by a data-path thread. */
export class StateDirectory {
  readonly #path: string;

  /**
   * @param path is made when it is missing
   * @throws {Error} when it cannot be made or written
   */
  constructor(path: string) {
    this.#path = path;
    try {
      Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
      const probe = `${path}/.probe-${Deno.pid}`;
      Deno.writeTextFileSync(probe, "");
      Deno.removeSync(probe);
    } catch (error) {
      throw new Error(`Cannot use the state directory ${path}: ${(error as Error).message}; choose one by --state-dir`);
    }
  }

  /**
   * The record of a disk. A missing one is begun anew, with a write epoch that cannot have been used.
   *
   * @param nowMs milliseconds since 1970
   * @throws {Error} when there is one that cannot be read: nothing may be guessed then
   */
  load(fingerprint: string, nowMs: number): DiskRecord {
    const path = this.#file(fingerprint);
    let text: string;
    try {
      text = Deno.readTextFileSync(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) {
        throw new Error(`Cannot read the record ${path}: ${(error as Error).message}`);
      }
      const record = newRecord(fingerprint, nowMs);
      this.save(record);
      return record;
    }
    try {
      return v.parse(recordSchema, JSON.parse(text));
    } catch (error) {
      throw new Error(`Cannot use the record ${path}: ${(error as Error).message}; remove it to begin anew`);
    }
  }

  /**
   * Replaces a record; it is on stable storage when the call returns.
   *
   * @throws {Error} when that cannot be done; the old record stays
   */
  save(record: DiskRecord): void {
    const path = this.#file(record.fingerprint);
    const temporary = `${path}.new`;
    try {
      const file = Deno.openSync(temporary, { write: true, create: true, truncate: true, mode: 0o600 });
      try {
        const bytes = new TextEncoder().encode(JSON.stringify(record) + "\n");
        for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
        file.syncSync();
      } finally {
        file.close();
      }
      Deno.renameSync(temporary, path);
      const folder = Deno.openSync(this.#path);
      try {
        folder.syncSync();
      } finally {
        folder.close();
      }
    } catch (error) {
      removeIfThere(temporary);
      throw new Error(`Cannot write the record ${path}: ${(error as Error).message}`);
    }
  }

  #file(fingerprint: string): string {
    return `${this.#path}/${createHash("sha256").update(fingerprint).digest("hex")}.json`;
  }
}

/** A record for a disk that was never seen before. Its write epoch, in microseconds since 1970, was never used. */
export function newRecord(fingerprint: string, nowMs: number): DiskRecord {
  return { fingerprint, storage: randomBytes(16).toString("hex"), writeEpoch: nowMs * 1000, failures: 0, session: "" };
}
