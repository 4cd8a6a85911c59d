/**
 * What an attachment's threads and the main isolate say to each other. Everything here is structured-cloneable.
 *
 * @module
 */
import type { Geometry } from "../engine/block.ts";
import type { Provider } from "../engine/cryptography.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";
import type { Grant } from "../protocol/grant.ts";
import type { OpenOptions, RecoveredSession } from "./open.ts";
import type { Patience } from "./patience.ts";
import type { Away } from "./session.ts";

/** What a lane's thread starts with. */
export interface AttachInit {
  /** The same for all threads of a session. */
  readonly open: OpenOptions & { readonly session: Uint8Array; readonly lanes: number };
  /** Which lane is the thread's. */
  readonly lane: number;
  /** Whether the exporter is named by a name, which is to be looked up each time. */
  readonly isNamed: boolean;
  /** The session's, where it is that of a process that is gone; null: it is to be opened. */
  readonly recovered: RecoveredSession | null;
}

/** The answer to `open`. */
export interface OpenedShape {
  readonly geometry: Geometry;
  /** Whether WRITE_ZEROES can succeed. */
  readonly writesZeroes: boolean;
  /** The slots that the lane was granted. */
  readonly depth: number;
  /** How many lanes the session was granted. */
  readonly lanes: number;
  /** The longest READ or WRITE that is one request on the wire, in bytes. */
  readonly partBytes: number;
  /** The wire's numbers of what was agreed on; the digest is NONE with a cipher. */
  readonly cipher: number;
  readonly digest: number;
  /** Who does that. */
  readonly provider: Provider;
  /** Where the exporter was reached. */
  readonly address: SocketAddress;
  /** All that the exporter has granted. */
  readonly grant: Grant;
}

/** The answer to `status`. */
export interface SessionState {
  readonly connected: boolean;
  readonly inFlight: number;
  /** NBD clients that are connected. */
  readonly clients: number;
  /** Where the lane is that has no connection and is coming back; else null. */
  readonly away: Away | null;
}

/** What the main isolate asks a thread. */
export type AttachQuestion =
  /**
   * Connect the lane: open the export, or join its session where that was opened. Answered by {@link OpenedShape}; at once,
   * where the session is recovered, as the lane connects by itself then.
   */
  | { readonly ask: "open"; readonly at: SocketAddress | null }
  /** Serve the disk to NBD clients on a listening socket; the descriptor is the thread's from now on. */
  | { readonly ask: "serveNbd"; readonly fd: number; readonly name: string }
  /** Serve one queue of a ublk device; its descriptor stays the asker's. */
  | { readonly ask: "serveUblk"; readonly fd: number; readonly queue: number; readonly depth: number }
  /** Answered by {@link SessionState}. */
  | { readonly ask: "status" }
  /** Accept no NBD clients any more and let those go that are there; answered when the last has gone. */
  | { readonly ask: "stopNbd" }
  /** Answered when the driver has taken back every tag of the queue: after STOP_DEV. */
  | { readonly ask: "queueEnd" }
  /** Everything that was acknowledged on any lane is put on stable storage. */
  | { readonly ask: "flush" }
  /** Be so patient from now on: what waits is judged by it at once. */
  | { readonly ask: "setPatience"; readonly patience: Patience }
  /** Another lane has a connection again: if this one has none, now is the time to try. */
  | { readonly ask: "hurry" }
  /** What the exporter's name stands for now: the answer to `lookUp`. None where that is not known. */
  | { readonly ask: "addresses"; readonly addresses: readonly SocketAddress[] }
  /** Drop the connection: what is under way fails. The reason is for people. */
  | { readonly ask: "abort"; readonly reason: string }
  /** End the session and the thread, whatever it is doing; answered by whether the exporter has confirmed it. */
  | { readonly ask: "leave" };

/** What a thread reports. */
export type AttachEvent =
  | { readonly event: "log"; readonly level: "debug" | "info" | "warning" | "error"; readonly text: string }
  /** The lane is lost, and every request on it fails from now on. */
  | { readonly event: "lost"; readonly reason: string }
  /** The lane has lost its connection and is coming back; requests wait. The reason is for people. */
  | { readonly event: "away"; readonly reason: string }
  /** The lane has a connection again, after so many milliseconds; so many requests are sent again. */
  | { readonly event: "back"; readonly awayMs: number; readonly resent: number; readonly grant: Grant }
  /** What the exporter had lost with its memory is written again: so many mutations of all lanes, so many bytes. */
  | { readonly event: "replayed"; readonly count: number; readonly bytes: number; readonly tookMs: number }
  /** What was acknowledged is lost for good, and every write fails from now on. The reason is for people. */
  | { readonly event: "dataLost"; readonly reason: string }
  /** So many requests have failed, since there was no life for too long. */
  | { readonly event: "expired"; readonly count: number }
  /** The exporter is there, but does not let the lane back in. The reason is for people. */
  | { readonly event: "keptOut"; readonly reason: string }
  /** What does the exporter's name stand for? */
  | { readonly event: "lookUp" }
  /** The exporter is being stopped, or this client's rights have changed. */
  | { readonly event: "shuttingDown" }
  /** The export has another size now, in bytes. */
  | { readonly event: "resized"; readonly size: number };
