/**
 * What the attachment's thread and the main isolate say to each other. Everything here is structured-cloneable.
 *
 * @module
 */
import type { Geometry } from "../engine/block.ts";
import type { OpenOptions } from "./open.ts";

/** What the thread starts with. */
export interface AttachInit {
  readonly open: OpenOptions;
}

/** The answer to `open`. */
export interface OpenedShape {
  readonly geometry: Geometry;
  /** Whether WRITE_ZEROES can succeed. */
  readonly writesZeroes: boolean;
  /** The slots that were granted. */
  readonly depth: number;
  /** The longest READ or WRITE that is one request on the wire, in bytes. */
  readonly partBytes: number;
  /** The wire's number of the digest that was agreed on. */
  readonly digest: number;
}

/** The answer to `status`. */
export interface SessionState {
  readonly connected: boolean;
  readonly inFlight: number;
  readonly failure: string | null;
  /** NBD clients that are connected. */
  readonly clients: number;
}

/** What the main isolate asks the thread. */
export type AttachQuestion =
  /** Connect and open the export; answered by {@link OpenedShape}. */
  | { readonly ask: "open" }
  /** Serve the disk to NBD clients on a listening socket, which is the thread's from now on. */
  | { readonly ask: "serveNbd"; readonly fd: number; readonly name: string }
  /** Serve the one queue of a ublk device; its descriptor stays the asker's. */
  | { readonly ask: "serveUblk"; readonly fd: number; readonly depth: number }
  /** Answered by {@link SessionState}. */
  | { readonly ask: "status" }
  /** Accept no NBD clients any more and let those go that are there; answered when the last has gone. */
  | { readonly ask: "stopNbd" }
  /** Answered when the driver has taken back every tag of the queue: after STOP_DEV. */
  | { readonly ask: "queueEnd" }
  /** Everything acknowledged is put on stable storage. */
  | { readonly ask: "flush" }
  /** Drop the connection: what is under way fails. */
  | { readonly ask: "abort" }
  /** End the session and the thread; answered by whether the exporter has confirmed it. */
  | { readonly ask: "leave" };

/** What the thread reports. */
export type AttachEvent = {
  readonly event: "log";
  readonly level: "debug" | "info" | "warning" | "error";
  readonly text: string;
};
