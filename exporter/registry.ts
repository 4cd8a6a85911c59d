/**
 * Who may do what: the exports, their sessions, and which of them writes. Pure rules (SPEC.md, 6.2 to 6.4), without I/O;
 * the door asks, and carries out what is answered.
 *
 * @module
 */
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
import { LANES_MAX, LEASE_MS_MAX } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import type { DiskRecord } from "./state.ts";

/** An export as the registry knows it. */
export interface RegisteredExport {
  readonly index: number;
  readonly name: string;
  readonly shape: ExportShape;
  /** A {@link Feature} set. */
  readonly features: number;
  /** 16 bytes: changes when acknowledged writes may be lost. */
  readonly durability: Uint8Array;
  /** All its lanes live in the first data-path Worker. */
  readonly oneWorker: boolean;
  /** Storage identity and write epoch. */
  record: DiskRecord;
}

/** One session. */
export interface Session {
  /** 32 hexadecimal digits; or what names an NBD front-end's connections together. */
  readonly id: string;
  /** Names this session alone: one that begins after its end may have the same id. */
  readonly key: string;
  readonly export: RegisteredExport;
  /** An {@link Access}. */
  readonly access: number;
  readonly holder: string;
  readonly address: string;
  readonly leaseMs: number;
  /** How many lanes it may have. */
  readonly lanesGranted: number;
  /** The generation of each lane, and whether it has a connection. */
  readonly lanes: Map<number, { generation: number; connected: boolean }>;
  /** It is being ended: nothing joins it any more. */
  ending: boolean;
}

/** A refusal: what the peer is told. */
export interface Refusal {
  readonly kind: "refused";
  readonly status: number;
  readonly text: string;
  readonly current: Holder | null;
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

/** All exports and sessions of one exporter. */
export class Registry {
  /** By their index. */
  readonly exports: readonly RegisteredExport[];
  readonly #instance: Uint8Array;
  readonly #exports = new Map<string, RegisteredExport>();
  readonly #sorted: RegisteredExport[];
  readonly #lanesMax: number;
  readonly #sessions = new Map<string, Session>();
  readonly #byKey = new Map<string, Session>();
  #opened = 0;

  /**
   * @param instance 16 random bytes, drawn at the start of the process
   * @param lanesMax how many lanes a session is granted at most
   */
  constructor(instance: Uint8Array, exports: readonly RegisteredExport[], lanesMax: number = LANES_MAX) {
    this.exports = exports;
    this.#instance = instance;
    this.#lanesMax = lanesMax;
    for (const one of exports) this.#exports.set(one.name, one);
    const encoder = new TextEncoder();
    this.#sorted = [...exports].sort((a, b) => compareBytes(encoder.encode(a.name), encoder.encode(b.name)));
  }

  /** The exports after a name, in the order of their names' bytes, at most so many. */
  list(after: string, most: number): { entries: ListEntry[]; more: boolean } {
    const encoder = new TextEncoder();
    const limit = encoder.encode(after);
    const rest = this.#sorted.filter((one) => after === "" || compareBytes(encoder.encode(one.name), limit) > 0);
    const entries = rest.slice(0, most).map((one) => ({
      name: one.name,
      size: one.shape.size,
      access: accessOf(one),
      features: one.features,
    }));
    return { entries, more: rest.length > most };
  }

  /** What there is to know about an export, or null. */
  describe(name: string): Description | null {
    const one = this.#exports.get(name);
    if (one === undefined) return null;
    const holder = this.#writer(one);
    return {
      ...one.shape,
      access: accessOf(one),
      features: one.features,
      identities: this.identities(one),
      current: holder === null ? null : currentOf(holder),
    };
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
  open(request: OpenRequest, address: string): OpenDecision {
    const one = this.#exports.get(request.export);
    if (one === undefined) return refusal(Status.NOT_FOUND, `There is no export "${request.export}"`);
    const writes = request.access === Access.READ_WRITE;
    if (writes && accessOf(one) !== Access.READ_WRITE) {
      return refusal(Status.DENIED, `The export "${one.name}" is read-only`);
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
    const session: Session = {
      id,
      key: `${id}.${++this.#opened}`,
      export: one,
      access: request.access,
      holder: request.holder,
      address,
      leaseMs: Math.min(request.leaseMs ?? 0, LEASE_MS_MAX),
      lanesGranted: Math.min(Math.max(request.lanes ?? 1, 1), this.#lanesMax),
      lanes: new Map(),
      ending: false,
    };
    return this.#admit(session, request.steal, id);
  }

  /** Whether the NBD front-end of an export may serve it: all its connections are one session. */
  openNbd(one: RegisteredExport, id: string, address: string): OpenDecision {
    return this.#admit(
      {
        id,
        key: id,
        export: one,
        access: accessOf(one),
        holder: "NBD clients",
        address,
        leaseMs: 0,
        lanesGranted: 1,
        lanes: new Map(),
        ending: false,
      },
      false,
      "",
    );
  }

  /** Whether a lane may be joined. */
  join(request: JoinRequest): JoinDecision {
    const session = this.find(hexOf(request.session));
    if (session === null || session.ending) return refusal(Status.NO_SESSION, "There is no such session");
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
