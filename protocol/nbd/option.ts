/**
 * Reads the data of NBD options. Every length is checked against what is there; what does not fit is null.
 *
 * @module
 */
import type { Memory } from "../consumer.ts";
import { STRING_BYTES_MAX } from "./wire.ts";

/** Data of INFO and GO. */
export interface OpenQuery {
  readonly name: string;
  /** Types of information that are wanted. */
  readonly infos: readonly number[];
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface MetaQuery {
  readonly name: string;
  readonly queries: readonly string[];
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A string of the specification: UTF-8 without NUL, at most 4096 bytes; else null. */
export function readString(memory: Memory, at: number, bytes: number): string | null {
  if (bytes > STRING_BYTES_MAX) return null;
  const copy = memory.bytes.slice(at, at + bytes);
  if (copy.includes(0)) return null;
  try {
    return decoder.decode(copy);
  } catch {
    return null;
  }
}

/** Reads the data of INFO and GO: name, number of information types, the types. */
export function readOpenQuery(memory: Memory, at: number, bytes: number): OpenQuery | null {
  if (bytes < 6) return null;
  const nameBytes = memory.view.getUint32(at);
  if (nameBytes > bytes - 6) return null;
  const name = readString(memory, at + 4, nameBytes);
  if (name === null) return null;
  const countAt = at + 4 + nameBytes;
  const count = memory.view.getUint16(countAt);
  if (bytes !== 6 + nameBytes + 2 * count) return null;
  const infos: number[] = [];
  for (let i = 0; i < count; i++) infos.push(memory.view.getUint16(countAt + 2 + 2 * i));
  return { name, infos };
}

/** Reads the data of the metadata options: name, number of queries, the queries. */
export function readMetaQuery(memory: Memory, at: number, bytes: number): MetaQuery | null {
  const end = at + bytes;
  if (bytes < 8) return null;
  const nameBytes = memory.view.getUint32(at);
  if (nameBytes > bytes - 8) return null;
  const name = readString(memory, at + 4, nameBytes);
  if (name === null) return null;
  const count = memory.view.getUint32(at + 4 + nameBytes);
  let from = at + 8 + nameBytes;
  // Each query has at least its length: more of them than fit cannot be true.
  if (count > (end - from) / 4) return null;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    if (end - from < 4) return null;
    const queryBytes = memory.view.getUint32(from);
    if (queryBytes > end - from - 4) return null;
    const query = readString(memory, from + 4, queryBytes);
    if (query === null) return null;
    queries.push(query);
    from += 4 + queryBytes;
  }
  return from === end ? { name, queries } : null;
}
