/**
 * What the exporter's threads say to each other. Everything here is structured-cloneable.
 *
 * The main isolate asks the door and the data-path Worker; the door and the Worker talk to each other directly.
 *
 * @module
 */
import type { LayerSpec } from "../engine/layers/mod.ts";
import type { Handoff } from "../protocol/exporter_door.ts";
import type { ExportShape } from "../protocol/grant.ts";
import type { OpenedDisk } from "./backends/open.ts";

/** How the door and the Worker reach each other: an end of their channel, and whom it wakes. */
export interface Link {
  readonly port: MessagePort;
  readonly wakePeer: number;
}

/** One export, for the Worker. */
export interface ServedExport {
  readonly name: string;
  readonly disk: OpenedDisk;
  readonly layers: readonly LayerSpec[];
  /** See `makeStickyWord()`. */
  readonly stickyWord: Int32Array;
}

/** What the data-path Worker starts with. */
export interface DataInit {
  readonly exports: readonly ServedExport[];
  readonly door: Link;
  /** A listening socket for NBD, or -1. */
  readonly nbdFd: number;
}

/** What the Worker answers to `shapes`: for each export its shape and features as the layers leave them. */
export interface ServedShape extends ExportShape {
  /** A `Feature` set. */
  readonly features: number;
}

/** What the main isolate asks the Worker. */
export type DataQuestion =
  /** Answered by `ServedShape[]`. */
  | { readonly ask: "shapes" }
  /** Finish, sync, close all; then the thread ends. */
  | { readonly ask: "stop" };

/** One export, for the door. */
export interface DoorExport {
  readonly name: string;
  readonly shape: ExportShape;
  readonly features: number;
  /** Names the disk across restarts; "" for one that does not outlive the process. */
  readonly fingerprint: string;
  /** 32 hexadecimal digits: the durability epoch. */
  readonly durability: string;
}

/** What the door starts with. */
export interface DoorInit {
  readonly exports: readonly DoorExport[];
  readonly digests: readonly number[];
  readonly stateDir: string;
  readonly listenFd: number;
  readonly data: Link;
}

/** What the main isolate asks the door. */
export type DoorQuestion =
  /** Answered by {@link DoorStatus}. */
  | { readonly ask: "status" }
  /** Accept nobody any more. */
  | { readonly ask: "stop" };

/** Sessions by export, in the order of the exports. */
export type DoorStatus = readonly { readonly holder: string; readonly address: string; readonly access: number }[][];

/** What door and Worker report to the main isolate. */
export type ThreadEvent = { readonly event: "log"; readonly level: "info" | "warning"; readonly text: string };

/** From the door to the data-path Worker. Sessions are named by their keys. */
export type ToData =
  /** Make the lane or fence it, and reserve what it needs; answered by `prepared`, `unprepared` and `fencing`. */
  | {
    readonly say: "prepare";
    readonly token: number;
    readonly session: string;
    readonly export: number;
    readonly readOnly: boolean;
    readonly lane: number;
    readonly fresh: boolean;
    readonly depth: number;
    readonly maxPayload: number;
  }
  /** The socket of a prepared lane. */
  | {
    readonly say: "connect";
    readonly session: string;
    readonly lane: number;
    readonly generation: number;
    readonly fd: number;
    readonly handoff: Handoff;
    /** OPEN or JOIN: what the grant answers. */
    readonly answerType: number;
    readonly grant: Uint8Array;
  }
  /** End the session; answered by `ended` when nothing of it executes any more. */
  | { readonly say: "end"; readonly session: string; readonly fenced: boolean }
  /** Answer to `closed`: the door has forgotten the session, and its client may be told. */
  | { readonly say: "release"; readonly session: string }
  /** Answer to `nbdOpen`: null is yes. */
  | { readonly say: "nbdOpened"; readonly export: number; readonly refusal: string | null };

/** From the data-path Worker to the door. Sessions are named by their keys. */
export type ToDoor =
  | { readonly say: "prepared"; readonly token: number; readonly depth: number; readonly maxPayload: number }
  | { readonly say: "unprepared"; readonly token: number; readonly status: number; readonly text: string }
  | { readonly say: "fencing"; readonly token: number; readonly executing: number }
  /** The lane has no connection any more. */
  | { readonly say: "lost"; readonly session: string; readonly lane: number; readonly generation: number }
  /** The session is being ended, and waits for requests that execute; said again and again. */
  | { readonly say: "ending"; readonly session: string; readonly executing: number }
  /** The client has closed its session, and nothing of it executes any more; answered by `release`. */
  | { readonly say: "closed"; readonly session: string }
  /** Nothing of the session is left. */
  | { readonly say: "ended"; readonly session: string }
  /** An NBD client wants the export, and no other does yet. */
  | { readonly say: "nbdOpen"; readonly export: number; readonly address: string }
  /** The last NBD client of the export has gone. */
  | { readonly say: "nbdClosed"; readonly export: number };

/** The id of the session that all NBD clients of an export make up. */
export function nbdSession(exportIndex: number): string {
  return `nbd:${exportIndex}`;
}
