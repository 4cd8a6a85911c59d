/**
 * An attachment: a remote disk as a local block device, or behind a local NBD server.
 *
 * @module
 */
import type { NbdAddress, RemoteAddress } from "../engine/control/address.ts";
export type { NbdAddress } from "../engine/control/address.ts";

/** How a client reaches an exporter; the same for every command. */
export interface SessionOptions {
  /** The requests that may be in flight at once, 1 to 1024. */
  readonly depth: number;
  readonly loop: "auto" | "uring" | "poll";
  /** Names of the digests that are acceptable, the best first. */
  readonly digests: readonly string[];
  /** Who the client is, for people. */
  readonly holder: string;
}

/** What {@link attach} needs to know. */
export interface AttachOptions extends RemoteAddress, SessionOptions {
  /** Where to serve the disk by NBD; null: as a block device by ublk. */
  readonly nbd: NbdAddress | null;
  readonly readOnly: boolean;
  /** Take the export from whoever holds it. */
  readonly steal: boolean;
}

/** What an attachment says about itself. It is sent as JSON. */
export interface AttachmentStatus {
  readonly connected: boolean;
  /** Name of the digest that was agreed on. */
  readonly digest: string;
  readonly loop: "uring" | "poll";
  /** Requests that await their reply. */
  readonly inFlight: number;
  /** Why writes fail for good, or null. */
  readonly failure: string | null;
}

/** A remote disk that is attached. */
export interface RunningAttachment {
  /** Names it on this machine: the number of its ublk device, or `nbd-PID`. */
  readonly id: number | string;
  /** For example `/dev/ublkb0`; null when it is served by NBD. */
  readonly device: string | null;
  /** For example `unix:/run/disk.sock`; null when it is a device. */
  readonly nbd: string | null;
  /** In bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  status(): Promise<AttachmentStatus>;
  /**
   * Drains and detaches. With `force` also while the device is in use: what was not yet written is then lost.
   *
   * @throws {Error} that names who uses it, when it is in use; everything goes on as before
   */
  detach(force: boolean): Promise<void>;
  /** Resolves, and never rejects, at the end: null after a detach, otherwise with what ended it. */
  readonly ended: Promise<Error | null>;
}

/**
 * Connects, opens the export and makes the device.
 *
 * @throws {Error} one line that says what could not be done, why, and what to do
 */
export function attach(_options: AttachOptions): Promise<RunningAttachment> {
  return Promise.reject(new Error("Cannot attach: the client is not in this build"));
}
