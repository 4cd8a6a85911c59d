/**
 * The TLVs of door messages as the client writes and reads them (SPEC.md, section 6). What arrives is checked: a
 * reader answers null for what no honest exporter sends. Control plane only, so it may allocate.
 *
 * @module
 */
import {
  Access,
  decodeGrant,
  type Description,
  type Grant,
  GRANT_TLVS,
  type Holder,
  IDENTITY_BYTES,
  type JoinRequest,
  type ListEntry,
  type OpenRequest,
  readIdentities,
  readShape,
} from "./grant.ts";
import { DEPTH_MAX, LANES_MAX, LEASE_MS_MAX, PAYLOAD_BYTES_GRANT_MIN, PAYLOAD_BYTES_MAX } from "./limits.ts";
import { Status, statusName } from "./status.ts";
import { Tlv, TlvReader, TlvWriter } from "./tlv.ts";

/** The TLVs of LIST. */
export function encodeList(after: string): Uint8Array {
  const writer = new TlvWriter();
  if (after !== "") writer.text(Tlv.AFTER, after);
  return writer.bytes;
}

/** The TLVs of DESCRIBE. */
export function encodeDescribe(name: string): Uint8Array {
  return new TlvWriter().text(Tlv.EXPORT, name).bytes;
}

/** The TLVs of OPEN. */
export function encodeOpen(request: OpenRequest): Uint8Array {
  const writer = new TlvWriter();
  writer.text(Tlv.EXPORT, request.export);
  writer.value(Tlv.SESSION, request.session);
  writer.uint32s(Tlv.ACCESS, request.access);
  writer.text(Tlv.HOLDER, request.holder);
  if (request.leaseMs !== null) writer.uint32s(Tlv.LEASE, request.leaseMs);
  if (request.depth !== null) writer.uint32s(Tlv.DEPTH, request.depth);
  if (request.maxPayload !== null) writer.uint32s(Tlv.PAYLOAD, request.maxPayload);
  if (request.lanes !== null) writer.uint32s(Tlv.LANES, request.lanes);
  if (request.steal) writer.empty(Tlv.STEAL);
  if (request.resume !== null) {
    const value = new Uint8Array(2 * IDENTITY_BYTES + 8);
    value.set(request.resume.storage, 0);
    value.set(request.resume.durability, IDENTITY_BYTES);
    new DataView(value.buffer).setBigUint64(2 * IDENTITY_BYTES, BigInt(request.resume.writeEpoch), true);
    writer.value(Tlv.RESUME, value);
  }
  return writer.bytes;
}

/** The TLVs of JOIN. */
export function encodeJoin(request: JoinRequest): Uint8Array {
  const writer = new TlvWriter();
  writer.value(Tlv.SESSION, request.session);
  writer.uint32s(Tlv.LANE, request.lane);
  writer.uint32s(Tlv.GENERATION, request.generation);
  if (request.depth !== null) writer.uint32s(Tlv.DEPTH, request.depth);
  if (request.maxPayload !== null) writer.uint32s(Tlv.PAYLOAD, request.maxPayload);
  if (request.fresh) writer.empty(Tlv.FRESH);
  return writer.bytes;
}

/** Words of the peer as they may stand in a terminal: without control characters, in one line. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}+/gu, " ").trim();
}

/** Whether the bytes of one name come before those of the other; both as they stood on the wire. */
function isBefore(left: Uint8Array, right: Uint8Array): boolean {
  for (let i = 0; i < left.length && i < right.length; i++) {
    if (left[i] !== right[i]) return left[i] < right[i];
  }
  return left.length < right.length;
}

/** CURRENT, or null if it is not there or malformed. */
function readCurrent(reader: TlvReader): Holder | null {
  const value = reader.value(Tlv.CURRENT);
  if (value === null) return null;
  if (value.length < 8) {
    reader.refuse();
    return null;
  }
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  const access = view.getUint32(0, true);
  if (access > Access.READ_WRITE || view.getUint32(4, true) !== 0) reader.refuse();
  return { access, text: printable(reader.textOf(value.subarray(8))) };
}

/** What an answer with an error says. */
export interface Refusal {
  /** For a person: the exporter's words, or the status's name where it sent none. */
  readonly text: string;
  /** Who holds the export, where that is the reason. */
  readonly current: Holder | null;
}

/** The answer with an error, or null if it is malformed. */
export function decodeRefusal(bytes: Uint8Array, status: number): Refusal | null {
  const reader = new TlvReader(bytes, [Tlv.TEXT, Tlv.CURRENT]);
  const text = printable(reader.text(Tlv.TEXT) ?? "");
  const current = readCurrent(reader);
  return reader.status === Status.OK ? { text: text === "" ? statusName(status) : text, current } : null;
}

/**
 * The answer to LIST, or null if it is malformed: also when its names do not ascend from `after` on, or it promises
 * more and gives nothing, so that asking page after page comes to an end.
 */
export function decodeList(bytes: Uint8Array, after: string): { entries: ListEntry[]; more: boolean } | null {
  const reader = new TlvReader(bytes, [Tlv.ENTRY, Tlv.MORE], [Tlv.ENTRY]);
  const entries: ListEntry[] = [];
  let last: Uint8Array = new TextEncoder().encode(after);
  for (const value of reader.all(Tlv.ENTRY)) {
    if (value.length <= 16) return null;
    const view = new DataView(value.buffer, value.byteOffset, value.length);
    const nameBytes = value.subarray(16);
    if (!isBefore(last, nameBytes)) return null;
    last = nameBytes;
    const access = view.getUint32(8, true);
    if (access > Access.READ_WRITE) return null;
    entries.push({
      name: reader.nameOf(nameBytes),
      size: reader.uint64Of(value, 0),
      access,
      features: view.getUint32(12, true),
    });
  }
  const more = reader.isSet(Tlv.MORE);
  return reader.status === Status.OK && !(more && entries.length === 0) ? { entries, more } : null;
}

/** Whether a disk can have this logical block, in bytes, and this size. */
function isShape(logicalBlock: number, size: number, blockMax: number): boolean {
  // A power of two has one bit set.
  return logicalBlock >= 1 && logicalBlock <= blockMax && (logicalBlock & (logicalBlock - 1)) === 0 &&
    size % logicalBlock === 0;
}

/** The answer to DESCRIBE, or null if it is malformed. */
export function decodeDescription(bytes: Uint8Array): Description | null {
  const accepted = [Tlv.SIZE, Tlv.BLOCKS, Tlv.ACCESS, Tlv.FEATURES, Tlv.IDENTITIES, Tlv.CURRENT];
  const reader = new TlvReader(bytes, accepted);
  const shape = readShape(reader);
  const identities = readIdentities(reader);
  const access = reader.uint32(Tlv.ACCESS);
  const features = reader.uint64(Tlv.FEATURES);
  const current = readCurrent(reader);
  if (reader.status !== Status.OK || shape === null || identities === null) return null;
  if (access === null || access > Access.READ_WRITE || features === null) return null;
  if (!isShape(shape.logicalBlock, shape.size, PAYLOAD_BYTES_MAX)) return null;
  return { ...shape, access, features, identities, current };
}

/** The answer to OPEN or JOIN, or null if it is malformed or its numbers are outside the limits of SPEC.md. */
export function decodeUsableGrant(bytes: Uint8Array): Grant | null {
  const grant = decodeGrant(new TlvReader(bytes, GRANT_TLVS));
  if (grant === null || grant.access > Access.READ_WRITE) return null;
  if (grant.slots < 1 || grant.slots > DEPTH_MAX || grant.lanes < 1 || grant.lanes > LANES_MAX) return null;
  if (grant.maxPayload < PAYLOAD_BYTES_GRANT_MIN || grant.maxPayload > PAYLOAD_BYTES_MAX) return null;
  if (grant.payloadBytes < grant.maxPayload || grant.leaseMs > LEASE_MS_MAX) return null;
  return isShape(grant.logicalBlock, grant.size, grant.maxPayload) ? grant : null;
}
