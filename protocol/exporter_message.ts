/**
 * The TLVs of door messages as the exporter reads and writes them (SPEC.md, section 6).
 *
 * @module
 */
import {
  Access,
  type Description,
  type Holder,
  IDENTITY_BYTES,
  type JoinRequest,
  type ListEntry,
  type OpenRequest,
  type Resume,
  writeIdentities,
  writeShape,
} from "./grant.ts";
import {
  CONTROL_BYTES_MAX,
  DEPTH_MAX,
  LANES_MAX,
  LEASE_MS_MAX,
  PAYLOAD_BYTES_GRANT_MIN,
  PAYLOAD_BYTES_MAX,
} from "./limits.ts";
import { Status } from "./status.ts";
import { Tlv, tlvBytes, TlvReader, TlvWriter } from "./tlv.ts";
import { writeUint64 } from "./wire.ts";

/** Reads an OPEN, or answers the status to refuse it with. Wishes come back within their limits. */
export function decodeOpen(tlvs: Uint8Array): OpenRequest | number {
  const reader = new TlvReader(tlvs, [
    Tlv.EXPORT,
    Tlv.SESSION,
    Tlv.ACCESS,
    Tlv.HOLDER,
    Tlv.LEASE,
    Tlv.DEPTH,
    Tlv.PAYLOAD,
    Tlv.LANES,
    Tlv.STEAL,
    Tlv.RESUME,
  ]);
  const name = reader.name(Tlv.EXPORT);
  const session = reader.value(Tlv.SESSION, IDENTITY_BYTES);
  const access = reader.uint32(Tlv.ACCESS);
  const holder = reader.name(Tlv.HOLDER);
  const request = {
    leaseMs: wish(reader.uint32(Tlv.LEASE), 0, LEASE_MS_MAX),
    depth: wish(reader.uint32(Tlv.DEPTH), 1, DEPTH_MAX),
    maxPayload: wish(reader.uint32(Tlv.PAYLOAD), PAYLOAD_BYTES_GRANT_MIN, PAYLOAD_BYTES_MAX),
    lanes: wish(reader.uint32(Tlv.LANES), 1, LANES_MAX),
    steal: reader.isSet(Tlv.STEAL),
    resume: readResume(reader),
  };
  if (reader.status !== Status.OK) return reader.status;
  if (name === null || session === null || access === null || holder === null) return Status.BAD_REQUEST;
  if (isAllZero(session) || access > Access.READ_WRITE) return Status.BAD_REQUEST;
  return { export: name, session, access, holder, ...request };
}

/** Reads a JOIN, or answers the status to refuse it with. Wishes come back within their limits. */
export function decodeJoin(tlvs: Uint8Array): JoinRequest | number {
  const reader = new TlvReader(tlvs, [Tlv.SESSION, Tlv.LANE, Tlv.GENERATION, Tlv.DEPTH, Tlv.PAYLOAD, Tlv.FRESH]);
  const session = reader.value(Tlv.SESSION, IDENTITY_BYTES);
  const lane = reader.uint32(Tlv.LANE);
  const generation = reader.uint32(Tlv.GENERATION);
  const depth = wish(reader.uint32(Tlv.DEPTH), 1, DEPTH_MAX);
  const maxPayload = wish(reader.uint32(Tlv.PAYLOAD), PAYLOAD_BYTES_GRANT_MIN, PAYLOAD_BYTES_MAX);
  const fresh = reader.isSet(Tlv.FRESH);
  if (reader.status !== Status.OK) return reader.status;
  if (session === null || lane === null || generation === null) return Status.BAD_REQUEST;
  if (isAllZero(session) || lane >= LANES_MAX || generation < 1) return Status.BAD_REQUEST;
  return { session, lane, generation, depth, maxPayload, fresh };
}

/** The answer to LIST: as many of the entries as fit, and MORE if there are others. */
export function encodeEntries(entries: readonly ListEntry[], more: boolean): TlvWriter {
  const writer = new TlvWriter();
  let left = more;
  for (const entry of entries) {
    const name = new TextEncoder().encode(entry.name);
    const value = new Uint8Array(16 + name.length);
    if (writer.length + tlvBytes(value.length) + tlvBytes(0) > CONTROL_BYTES_MAX) {
      left = true;
      break;
    }
    const view = new DataView(value.buffer);
    writeUint64(view, 0, entry.size);
    view.setUint32(8, entry.access, true);
    view.setUint32(12, entry.features, true);
    value.set(name, 16);
    writer.value(Tlv.ENTRY, value);
  }
  if (left) writer.empty(Tlv.MORE);
  return writer;
}

/** The answer to DESCRIBE. */
export function encodeDescription(description: Description): TlvWriter {
  const writer = new TlvWriter();
  writeShape(writer, description);
  writer.uint32s(Tlv.ACCESS, description.access);
  writer.uint64(Tlv.FEATURES, description.features);
  writeIdentities(writer, description.identities);
  if (description.current !== null) writeHolder(writer, description.current);
  return writer;
}

/** Writes CURRENT: who holds the export. */
export function writeHolder(writer: TlvWriter, holder: Holder): void {
  const text = new TextEncoder().encode(holder.text);
  const value = new Uint8Array(8 + text.length);
  new DataView(value.buffer).setUint32(0, holder.access, true);
  value.set(text, 8);
  writer.value(Tlv.CURRENT, value);
}

/** What the client requires to find again. */
function readResume(reader: TlvReader): Resume | null {
  const value = reader.value(Tlv.RESUME, 2 * IDENTITY_BYTES + 8);
  if (value === null) return null;
  return {
    storage: value.slice(0, IDENTITY_BYTES),
    durability: value.slice(IDENTITY_BYTES, 2 * IDENTITY_BYTES),
    writeEpoch: reader.uint64Of(value, 2 * IDENTITY_BYTES),
  };
}

/** A wish outside its limits is granted as if it were the nearest one within. */
function wish(value: number | null, least: number, most: number): number | null {
  return value === null ? null : Math.min(Math.max(value, least), most);
}

function isAllZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
