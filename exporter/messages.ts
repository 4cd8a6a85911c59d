/**
 * What the exporter's threads say to each other. Everything here is structured-cloneable.
 *
 * The main isolate asks the door and the data-path Workers; the door and the Workers talk to each other directly. The
 * Workers never talk among themselves: what concerns a session whose lanes live in several of them the door sees to.
 *
 * @module
 */
import type { LayerSpec } from "../engine/layers/mod.ts";
import type { Handoff } from "../protocol/codec.ts";
import type { ExportShape } from "../protocol/grant.ts";
import type { Access } from "./admission.ts";
import type { OpenedDisk } from "./backends/open.ts";
import type { AccessRules } from "./permissions.ts";

/** How the door and a Worker reach each other: an end of their channel, and whom it wakes. */
export interface Link {
  readonly port: MessagePort;
  readonly wakePeer: number;
}

/** One export, for a Worker. */
export interface ServedExport {
  readonly name: string;
  readonly disk: OpenedDisk;
  readonly layers: readonly LayerSpec[];
  /** See `makeStickyWord()`. */
  readonly stickyWord: Int32Array;
}

/** What a data-path Worker starts with. */
export interface DataInit {
  /** In the order of the exports; null for one that lives in another Worker only. */
  readonly exports: readonly (ServedExport | null)[];
  readonly door: Link;
  /** A listening socket for NBD, or -1. The Worker that has it has all exports. */
  readonly nbdFd: number;
  /** Of which the addresses concern NBD clients, too. */
  readonly rules: AccessRules;
}

/** What an export is like, as the layers leave it. */
export interface ServedShape extends ExportShape {
  /** A `Feature` set. */
  readonly features: number;
}

/** What the main isolate asks a Worker. */
export type DataQuestion =
  /** What an export is like that lives in the Worker: answered by its {@link ServedShape}. */
  | { readonly ask: "shape"; readonly index: number }
  /** Serve one more, with an index that was never used. */
  | { readonly ask: "add"; readonly index: number; readonly export: ServedExport }
  /** Let go of one that nobody uses any more, if it is there. Answered when it is synced and closed. */
  | { readonly ask: "remove"; readonly index: number }
  /** Other rules for the NBD clients from now on. */
  | { readonly ask: "reload"; readonly rules: AccessRules }
  /** Finish, sync, close all; then the thread ends. */
  | { readonly ask: "stop" };

/** One export, for the door. */
export interface DoorExport {
  /** Names it to all threads, for as long as the exporter runs. */
  readonly index: number;
  readonly name: string;
  readonly shape: ExportShape;
  readonly features: number;
  /** Names the disk across restarts; "" for one that does not outlive the process. */
  readonly fingerprint: string;
  /** 32 hexadecimal digits: the durability epoch. */
  readonly durability: string;
  /** Its layers have state, so that all lanes live in the first Worker. */
  readonly oneWorker: boolean;
}

/** An export that has become larger or smaller. */
export interface ResizedExport {
  readonly index: number;
  /** In bytes: whole blocks. */
  readonly size: number;
  /** See {@link DoorExport}; a block device has another one. */
  readonly fingerprint: string;
}

/** What the door starts with. */
export interface DoorInit {
  readonly exports: readonly DoorExport[];
  readonly access: Access;
  readonly stateDir: string;
  readonly listenFd: number;
  /** The data-path Workers. */
  readonly data: readonly Link[];
}

/** What the main isolate asks the door. */
export type DoorQuestion =
  /** Answered by {@link DoorStatus}. */
  | { readonly ask: "status" }
  /**
   * Decide everything by these rules from now on, serve more exports, and end the sessions of others, which are there no
   * more; tell the clients of those that have another size. Answered by the number of sessions that end.
   */
  | {
    readonly ask: "reload";
    readonly access: Access;
    readonly added: readonly DoorExport[];
    /** Indexes. */
    readonly removed: readonly number[];
    readonly resized: readonly ResizedExport[];
  }
  /** Answered when nothing of the sessions of an export is left that was removed. */
  | { readonly ask: "gone"; readonly index: number }
  /** Accept nobody any more. */
  | { readonly ask: "stop" };

/** One session, as the door knows it. */
export interface DoorSession {
  readonly holder: string;
  readonly address: string;
  /** An `Access`. */
  readonly access: number;
  /** Lanes that have a connection. */
  readonly lanes: number;
  /** The name of the key that opened it; null without one. */
  readonly key: string | null;
  /** What its latest connection agreed on, by number; null for NBD clients. */
  readonly suite: { readonly cipher: number; readonly digest: number } | null;
}

/** Sessions by the index of the export. */
export type DoorStatus = ReadonlyMap<number, readonly DoorSession[]>;

/** What door and Workers report to the main isolate. */
export type ThreadEvent = { readonly event: "log"; readonly level: "info" | "warning"; readonly text: string };

/**
 * How a session is ended: without a word, as when its lease is over; because another took over (FENCED); or because its
 * client's rights are gone, for which the exporter is as good as ending (SHUTTING_DOWN).
 */
export type EndManner = "silent" | "fenced" | "dismissed";

/** From the door to a data-path Worker. Sessions are named by their keys. */
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
  /** End the Worker's part of the session; answered by `ended` when nothing of it executes any more. */
  | { readonly say: "end"; readonly session: string; readonly manner: EndManner }
  /** The client closes the session: let what executes finish; answered by `closed`. */
  | { readonly say: "close"; readonly session: string }
  /** The session is closed in all Workers and forgotten by the door: its client may be told. */
  | { readonly say: "release"; readonly session: string }
  /**
   * A disk has so many bytes now. Comes from the door, as `connect` does, so that a grant with another size comes before it.
   */
  | { readonly say: "resized"; readonly export: number; readonly size: number }
  /** Answer to `nbdOpen`: null is yes. */
  | { readonly say: "nbdOpened"; readonly export: number; readonly refusal: string | null };

/** From a data-path Worker to the door. Sessions are named by their keys. */
export type ToDoor =
  | { readonly say: "prepared"; readonly token: number; readonly depth: number; readonly maxPayload: number }
  | { readonly say: "unprepared"; readonly token: number; readonly status: number; readonly text: string }
  | { readonly say: "fencing"; readonly token: number; readonly executing: number }
  /** The lane has no connection any more. */
  | { readonly say: "lost"; readonly session: string; readonly lane: number; readonly generation: number }
  /** The Worker's part of the session is to end, and waits for requests that execute; said again and again. */
  | { readonly say: "ending"; readonly session: string; readonly executing: number }
  /** CLOSE has arrived on a lane of the session; answered by `close` to all Workers that have a part of it. */
  | { readonly say: "closing"; readonly session: string }
  /** Nothing of the Worker's part of a closing session executes any more, nor will; answered by `release`. */
  | { readonly say: "closed"; readonly session: string }
  /** Nothing of the Worker's part of the session is left. */
  | { readonly say: "ended"; readonly session: string }
  /** Stable storage has failed: what no flush had covered may be lost. Said once for an export. */
  | { readonly say: "failed"; readonly export: number }
  /** An NBD client wants the export, and no other does yet. */
  | { readonly say: "nbdOpen"; readonly export: number; readonly address: string }
  /** The last NBD client of the export has gone. */
  | { readonly say: "nbdClosed"; readonly export: number };

const NBD_SESSION = "nbd:";

/** The id of the session that all NBD clients of an export make up. */
export function nbdSession(exportIndex: number): string {
  return `${NBD_SESSION}${exportIndex}`;
}

/** The export of a session with such an id; -1 for any other. */
export function nbdExport(session: string): number {
  return session.startsWith(NBD_SESSION) ? Number(session.slice(NBD_SESSION.length)) : -1;
}
