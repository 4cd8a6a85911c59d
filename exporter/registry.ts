/**
 * Who may do what: the exports, their sessions, and which of them writes. Pure rules (SPEC.md, 6 and 6.2 to 6.4), without
 * I/O; the door asks, and carries out what is answered.
 *
 * @module
 */
import type { SocketAddress } from "../ffi/sockaddr.ts";
import {
  Access,
  type Description,
  type ExportShape,
  Feature,
  type Holder,
  type Identities,
  type JoinRequest,
  type ListEntry,
  type OpenRequest,
} from "../protocol/grant.ts";
import { LEASE_MS_MAX } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import type { Permission, Permissions } from "./permissions.ts";
import type { DiskRecord } from "./state.ts";

/** An export as the registry knows it. */
export interface RegisteredExport {
  readonly index: number;
  readonly name: string;
  shape: ExportShape;
  /** A {@link Feature} set. */
  readonly features: number;
  /** 16 bytes: changes when acknowledged writes may be lost. */
  readonly durability: Uint8Array;
  /** All its lanes live in the first data-path Worker. */
  readonly oneWorker: boolean;
  /** Storage identity and write epoch. */
  record: DiskRecord;
}

/** Whoever asks. */
export interface Peer {
  /** The key that it has proved to have, 32 hexadecimal digits; null without a key. */
  readonly keyId: string | null;
  /** Null where it could not be found out. */
  readonly socketAddress: SocketAddress | null;
  /** The same for people. */
  readonly address: string;
}

/** One lane of a session, as far as it was ever asked for. */
export interface SessionLane {
  readonly generation: number;
  connected: boolean;
  /** From where it was asked for last. */
  readonly socketAddress: SocketAddress | null;
}

/** One session. */
export interface Session {
  /** 32 hexadecimal digits; or what names an NBD front-end's connections together. */
  readonly id: string;
  /** Names this session alone: one that begins after its end may have the same id. */
  readonly key: string;
  /** It is all NBD clients of an export, which have no keys. */
  readonly isNbd: boolean;
  readonly export: RegisteredExport;
  /** An {@link Access}. */
  readonly access: number;
  readonly holder: string;
  readonly address: string;
  /** The key that opened it, and its name then; null without one. */
  readonly keyId: string | null;
  readonly keyName: string | null;
  readonly leaseMs: number;
  /** How many lanes it may have. */
  readonly lanesGranted: number;
  readonly lanes: Map<number, SessionLane>;
  /** Cipher and digest of the connection that came last, by number; null before the first. */
  suite: { readonly cipher: number; readonly digest: number } | null;
  /** It is being ended: nothing joins it any more. */
  ending: boolean;
}

/** A refusal: what the peer is told. */
export interface Refusal {
  readonly kind: "refused";
  readonly status: number;
  readonly text: string;
  readonly current: Holder | null;
  /** What the exporter's log says instead, where the peer is told less than is so. */
  readonly logText?: string;
}

/** What the door is to do about an OPEN. */
export type OpenDecision =
  | Refusal
  /** End this session first (it is stolen from), then ask again. */
  | { readonly kind: "end first"; readonly session: Session }
  /** Write the record to stable storage where there is one, then let the session begin. */
  | { readonly kind: "granted"; readonly session: Session; readonly record: DiskRecord | null };

/** What the door is to do about a JOIN. */
export type JoinDecision = Refusal | { readonly kind: "granted"; readonly session: Session };

/** How much there may be. */
export interface RegistryLimits {
  /** Sessions at once, those of NBD clients not counted. */
  readonly sessions: number;
  /** Lanes of one session. */
  readonly lanes: number;
}

/** All exports and sessions of one exporter. */
export class Registry {
  readonly #instance: Uint8Array;
  /** By their name. */
  readonly #exports = new Map<string, RegisteredExport>();
  /** By their index, those too that were removed. */
  readonly #byIndex = new Map<number, RegisteredExport>();
  /** By the bytes of their names. */
  #sorted: RegisteredExport[];
  #permissions: Permissions;
  #limits: RegistryLimits;
  readonly #sessions = new Map<string, Session>();
  readonly #byKey = new Map<string, Session>();
  #opened = 0;

  /**
   * @param instance 16 random bytes, drawn at the start of the process
   * @param permissions who may use what
   */
  constructor(
    instance: Uint8Array,
    exports: readonly RegisteredExport[],
    permissions: Permissions,
    limits: RegistryLimits,
  ) {
    this.#instance = instance;
    this.#permissions = permissions;
    this.#limits = limits;
    this.#sorted = [];
    for (const one of exports) this.add(one);
  }

  /** All exports that are there. */
  get exports(): readonly RegisteredExport[] {
    return this.#sorted;
  }

  /** The export with this index, also when it was removed. */
  exportOf(index: number): RegisteredExport {
    return this.#byIndex.get(index)!;
  }

  /** One more, with a name that no other has, and an index that was never used. */
  add(one: RegisteredExport): void {
    this.#exports.set(one.name, one);
    this.#byIndex.set(one.index, one);
    this.#sorted = this.#inOrder();
  }

  /**
   * From now on it is not there any more.
   *
   * @returns its sessions: they are to be ended
   */
  remove(index: number): Session[] {
    const one = this.exportOf(index);
    this.#exports.delete(one.name);
    this.#sorted = this.#inOrder();
    return this.sessionsOf(one).filter(({ ending }) => !ending);
  }

  /**
   * Everything is decided by these from now on.
   *
   * @returns the sessions whose rights are gone: they are to be ended
   */
  replace(permissions: Permissions, limits: RegistryLimits): Session[] {
    this.#permissions = permissions;
    this.#limits = limits;
    return [...this.#sessions.values()].filter((session) => !session.ending && !this.#isPermitted(session));
  }

  /** The exports after a name that the peer may see, in the order of their names' bytes, at most so many. */
  list(after: string, most: number, peer: Peer): { entries: ListEntry[]; more: boolean } {
    const encoder = new TextEncoder();
    const limit = encoder.encode(after);
    const entries: ListEntry[] = [];
    for (const one of this.#sorted) {
      if (after !== "" && compareBytes(encoder.encode(one.name), limit) <= 0) continue;
      const access = this.#accessTo(one, peer);
      if (access === null) continue;
      if (entries.length === most) return { entries, more: true };
      entries.push({ name: one.name, size: one.shape.size, access, features: one.features });
    }
    return { entries, more: false };
  }

  /** What there is to know about an export, or null: there is none that the peer may see. */
  describe(name: string, peer: Peer): Description | null {
    const one = this.#exports.get(name);
    const access = one === undefined ? null : this.#accessTo(one, peer);
    if (one === undefined || access === null) return null;
    const holder = this.#writer(one);
    return {
      ...one.shape,
      access,
      features: one.features,
      identities: this.identities(one),
      current: holder === null ? null : currentOf(holder),
    };
  }

  /** Why a peer finds no export of this name, for the exporter's log: it is not told itself whether there is one. */
  whyNotFound(name: string, peer: Peer): string {
    if (!this.#exports.has(name)) return `there is no export "${name}"`;
    if (!this.#permissions.admitsTo(name, peer.socketAddress)) return `the export "${name}" may not be used from there`;
    return `${this.#whoIs(peer)} may not use the export "${name}"`;
  }

  /** The four identities of an export now. */
  identities(one: RegisteredExport): Identities {
    return {
      instance: this.#instance,
      durability: one.durability,
      storage: bytesOfHex(one.record.storage),
      writeEpoch: one.record.writeEpoch,
    };
  }

  /** The session of this id, or null. */
  find(id: string): Session | null {
    return this.#sessions.get(id) ?? null;
  }

  /** The session of this key, or null. */
  findKey(key: string): Session | null {
    return this.#byKey.get(key) ?? null;
  }

  /** All sessions of an export. */
  sessionsOf(one: RegisteredExport): Session[] {
    return [...this.#sessions.values()].filter((session) => session.export === one);
  }

  /** Whether a session may begin, under SPEC.md 6.2 and 6.3. A granted one must be entered by {@link begin}. */
  open(request: OpenRequest, peer: Peer): OpenDecision {
    const one = this.#exports.get(request.export);
    const access = one === undefined ? null : this.#accessTo(one, peer);
    if (one === undefined || access === null) {
      const { export: name } = request;
      return { ...refusal(Status.NOT_FOUND, `There is no export "${name}"`), logText: this.whyNotFound(name, peer) };
    }
    const writes = request.access === Access.READ_WRITE;
    if (writes && access !== Access.READ_WRITE) {
      if (accessOf(one) !== Access.READ_WRITE) {
        return refusal(Status.DENIED, `The export "${one.name}" is read-only`);
      }
      const logText = `${this.#whoIs(peer)} may only read the export "${one.name}"`;
      return { ...refusal(Status.DENIED, `You may only read the export "${one.name}"`), logText };
    }
    const id = hexOf(request.session);
    if (this.#sessions.has(id)) return refusal(Status.SESSION_EXISTS, "This session exists already: join it");
    const resume = request.resume;
    if (resume !== null) {
      if (hexOf(resume.storage) !== one.record.storage) {
        return refusal(Status.STORAGE_CHANGED, `The export "${one.name}" is not the same disk any more`);
      }
      if (writes && (resume.writeEpoch !== one.record.writeEpoch || one.record.session !== id) && !isShared(one)) {
        return refusal(Status.EPOCH_CHANGED, `Another writer has taken over the export "${one.name}"`);
      }
    }
    const dst = [...this.#sessions.values()].filter(({ isNbd }) => !isNbd);
    if (dst.length >= this.#limits.sessions) {
      return refusal(Status.TOO_MANY, `The exporter has ${dst.length} sessions already`);
    }
    const session: Session = {
      id,
      key: `${id}.${++this.#opened}`,
      isNbd: false,
      export: one,
      access: request.access,
      holder: request.holder,
      address: peer.address,
      keyId: peer.keyId,
      keyName: this.#permissions.nameOf(peer.keyId),
      leaseMs: Math.min(request.leaseMs ?? 0, LEASE_MS_MAX),
      lanesGranted: Math.min(Math.max(request.lanes ?? 1, 1), this.#limits.lanes),
      lanes: new Map(),
      suite: null,
      ending: false,
    };
    return this.#admit(session, request.steal, id);
  }

  /** Whether the NBD front-end of an export may serve it: all its connections are one session. */
  openNbd(one: RegisteredExport, id: string, address: string): OpenDecision {
    if (this.#exports.get(one.name) !== one) return refusal(Status.NOT_FOUND, `There is no export "${one.name}"`);
    return this.#admit(
      {
        id,
        key: id,
        isNbd: true,
        export: one,
        access: accessOf(one),
        holder: "NBD clients",
        address,
        keyId: null,
        keyName: null,
        leaseMs: 0,
        lanesGranted: 1,
        lanes: new Map(),
        suite: null,
        ending: false,
      },
      false,
      "",
    );
  }

  /** Whether a lane may be joined: under the key that opened the session, and from where its right holds. */
  join(request: JoinRequest, peer: Peer): JoinDecision {
    const session = this.find(hexOf(request.session));
    const isTheirs = session !== null && session.keyId === peer.keyId &&
      this.#permits(session, peer.socketAddress);
    if (session === null || session.ending || !isTheirs) {
      return refusal(Status.NO_SESSION, "There is no such session");
    }
    if (request.lane >= session.lanesGranted) {
      const text = `The session was granted ${session.lanesGranted} lane(s), and lane ${request.lane} is none of them`;
      return refusal(Status.BAD_REQUEST, text);
    }
    const lane = session.lanes.get(request.lane);
    if (lane !== undefined && request.generation <= lane.generation) {
      return refusal(Status.OLD_GENERATION, `The lane has generation ${lane.generation} already`);
    }
    return { kind: "granted", session };
  }

  /** Enters a granted session, its record being on stable storage. */
  begin(session: Session, record: DiskRecord | null): void {
    if (record !== null) session.export.record = record;
    this.#sessions.set(session.id, session);
    this.#byKey.set(session.key, session);
  }

  /** Forgets a session that has ended. */
  end(session: Session): void {
    this.#sessions.delete(session.id);
    this.#byKey.delete(session.key);
  }

  /** @param recordAs what the record is to say of the writer: NBD clients cannot resume, so nobody is recorded for them */
  #admit(session: Session, steal: boolean, recordAs: string): OpenDecision {
    const one = session.export;
    if (session.access !== Access.READ_WRITE || isShared(one)) return { kind: "granted", session, record: null };
    const holder = this.#writer(one);
    if (holder !== null && (steal || holder.ending)) return { kind: "end first", session: holder };
    if (holder !== null) {
      const current = currentOf(holder);
      return { ...refusal(Status.BUSY, `The export "${one.name}" is held read-write by ${current.text}`), current };
    }
    const isSame = recordAs !== "" && one.record.session === recordAs;
    const record = isSame ? null : { ...one.record, writeEpoch: one.record.writeEpoch + 1, session: recordAs };
    return { kind: "granted", session, record };
  }

  #inOrder(): RegisteredExport[] {
    const encoder = new TextEncoder();
    return [...this.#exports.values()].sort((a, b) => compareBytes(encoder.encode(a.name), encoder.encode(b.name)));
  }

  /** The {@link Access} of a peer to an export at most; null: it is to learn nothing of it. */
  #accessTo(one: RegisteredExport, peer: Peer): number | null {
    const permission = this.#permissions.accessTo(one.name, peer.keyId, peer.socketAddress);
    if (permission === null) return null;
    return permission === "read" ? Access.READ : accessOf(one);
  }

  /** A peer, in the log. Between the proof of its key and its request a reload may have taken the key away. */
  #whoIs(peer: Peer): string {
    if (peer.keyId === null) return "whoever has no key";
    const name = this.#permissions.nameOf(peer.keyId);
    return name === null ? "a key that is gone" : `the key "${name}"`;
  }

  /** Whether the session's right holds from each address that it is used from. */
  #isPermitted(session: Session): boolean {
    // The clients of an NBD front-end are let in, and sent away, where they connect.
    if (session.isNbd) return true;
    for (const { socketAddress } of session.lanes.values()) if (!this.#permits(session, socketAddress)) return false;
    return true;
  }

  #permits(session: Session, address: SocketAddress | null): boolean {
    const access: Permission = session.access === Access.READ_WRITE ? "read-write" : "read";
    return this.#permissions.permits({ export: session.export.name, keyId: session.keyId, address, access });
  }

  #writer(one: RegisteredExport): Session | null {
    if (isShared(one)) return null;
    return this.sessionsOf(one).find((session) => session.access === Access.READ_WRITE) ?? null;
  }
}

function isShared(one: RegisteredExport): boolean {
  return (one.features & Feature.SHARED) !== 0;
}

function accessOf(one: RegisteredExport): number {
  return (one.features & Feature.READ_ONLY) !== 0 ? Access.READ : Access.READ_WRITE;
}

function currentOf(session: Session): Holder {
  return { access: session.access, text: `${session.holder} at ${session.address}` };
}

function refusal(status: number, text: string): Refusal {
  return { kind: "refused", status, text, current: null };
}

/** Orders by bytes, as memcmp(3). */
function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

/** Bytes as hexadecimal digits. */
export function hexOf(bytes: Uint8Array): string {
  return bytes.toHex();
}

/** Hexadecimal digits as bytes. */
export function bytesOfHex(text: string): Uint8Array {
  return Uint8Array.fromHex(text);
}
