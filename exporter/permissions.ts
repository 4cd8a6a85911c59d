/**
 * Who may use what: by key and by address. Pure rules, without I/O; secrets are no part of them.
 *
 * @module
 */
import { type AddressRange, isInRange } from "../engine/control/cidr.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";

/** What a peer may do with an export. */
export type Permission = "read" | "read-write";

/** Stands for every key that an export does not name. It can be no key's name. */
export const EVERY_OTHER_KEY = "*";

/** The rules of one exporter, as its configuration has them. They can be sent to another thread. */
export interface AccessRules {
  /** From where anybody may connect at all; null: from everywhere. */
  readonly allow: readonly AddressRange[] | null;
  /** Those who may connect, each of them known by its key. Without any, whoever can connect needs none. */
  readonly keys: readonly KeyRule[];
  readonly exports: readonly ExportRule[];
}

/** The rules of one key. */
export interface KeyRule {
  /** 32 hexadecimal digits. */
  readonly id: string;
  readonly name: string;
  /** From where the key may be used; null: from everywhere. */
  readonly allow: readonly AddressRange[] | null;
}

/** The rules of one export. */
export interface ExportRule {
  readonly name: string;
  /** From where the export may be used; null: from everywhere. */
  readonly allow: readonly AddressRange[] | null;
  /** What each key may do, by its name or {@link EVERY_OTHER_KEY}; null: every peer may read and write. */
  readonly permissions: Readonly<Record<string, Permission>> | null;
}

/** The rights that somebody uses. */
export interface UsedRight {
  /** Name of the export. */
  readonly export: string;
  /** 32 hexadecimal digits; null for a peer without a key. */
  readonly keyId: string | null;
  /** Null where it could not be found out. */
  readonly address: SocketAddress | null;
  /** What was granted, which may be less than what could have been. */
  readonly access: Permission;
}

/** The rules, ready to be asked. What they do not know of, an export's being read-only, only takes more away. */
export class Permissions {
  readonly #allow: readonly AddressRange[] | null;
  readonly #keys = new Map<string, KeyRule>();
  readonly #exports = new Map<string, ExportRule>();

  constructor(rules: AccessRules) {
    this.#allow = rules.allow;
    for (const key of rules.keys) this.#keys.set(key.id, key);
    for (const one of rules.exports) this.#exports.set(one.name, one);
  }

  /** Whether a peer without a key is turned away. */
  get needsKey(): boolean {
    return this.#keys.size > 0;
  }

  /** Whether anybody may connect from there: asked before a word is said. */
  admitsAddress(address: SocketAddress | null): boolean {
    return isAllowed(this.#allow, address);
  }

  /**
   * Whether a peer may come in: a key from where it may be used, and with something to use it for. One that may not is to
   * be told no more than one that is not known.
   *
   * @param keyId 32 hexadecimal digits, or null for a peer without a key
   */
  admits(keyId: string | null, address: SocketAddress | null): boolean {
    if (keyId === null) return this.#isKnown(null, address);
    for (const name of this.#exports.keys()) if (this.accessTo(name, keyId, address) !== null) return true;
    return false;
  }

  /** Why {@link admits} refuses, for the exporter's log; null: it does not. */
  whyNot(keyId: string | null, address: SocketAddress | null): string | null {
    if (this.admits(keyId, address)) return null;
    if (!this.admitsAddress(address)) return "nobody may connect from there";
    if (keyId === null) return "it named no key";
    const key = this.#keys.get(keyId);
    if (key === undefined) return "its key is not known";
    const is = isAllowed(key.allow, address) ? "may use no export" : "may not be used from there";
    return `the key "${key.name}" ${is}`;
  }

  /** The name of a key; null for one that is not known. */
  nameOf(keyId: string | null): string | null {
    return keyId === null ? null : this.#keys.get(keyId)?.name ?? null;
  }

  /** Whether anybody may use the export from there, keys aside: NBD clients have none. */
  admitsTo(exportName: string, address: SocketAddress | null): boolean {
    const one = this.#exports.get(exportName);
    return one !== undefined && this.admitsAddress(address) && isAllowed(one.allow, address);
  }

  /**
   * What a peer may do with an export; null when it is to learn nothing of it.
   *
   * @param exportName of the export
   * @param keyId 32 hexadecimal digits, or null for a peer without a key
   */
  accessTo(exportName: string, keyId: string | null, address: SocketAddress | null): Permission | null {
    const one = this.#exports.get(exportName);
    if (one === undefined || !this.#isKnown(keyId, address) || !isAllowed(one.allow, address)) return null;
    if (one.permissions === null) return "read-write";
    const name = keyId === null ? EVERY_OTHER_KEY : this.#keys.get(keyId)!.name;
    return permissionOf(one.permissions, name) ?? permissionOf(one.permissions, EVERY_OTHER_KEY);
  }

  /** Whether somebody may go on with what was granted before these rules were made. A right that only grew is unharmed. */
  permits(right: UsedRight): boolean {
    const access = this.accessTo(right.export, right.keyId, right.address);
    return access === "read-write" || access === right.access;
  }

  /** Whether there is such a key, or none is needed, and the address is right. */
  #isKnown(keyId: string | null, address: SocketAddress | null): boolean {
    if (!this.admitsAddress(address)) return false;
    if (keyId === null) return !this.needsKey;
    const key = this.#keys.get(keyId);
    return key !== undefined && isAllowed(key.allow, address);
  }
}

/**
 * Whether a list has the address. A peer on this machine that came through a unix socket has none, and was let in by the
 * rights of the socket's file; where an address could not be found out, only the absence of a list lets it in.
 */
function isAllowed(allow: readonly AddressRange[] | null, address: SocketAddress | null): boolean {
  if (allow === null) return true;
  if (address === null) return false;
  return address.family === "unix" || allow.some((range) => isInRange(range, address));
}

/** The permission of that name alone: not of what every object has. */
function permissionOf(permissions: Readonly<Record<string, Permission>>, name: string): Permission | null {
  return Object.hasOwn(permissions, name) ? permissions[name] : null;
}
