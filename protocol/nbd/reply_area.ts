/**
 * Where the replies of the handshake are written and wait until they are sent.
 *
 * @module
 */
import { assert } from "../assert.ts";
import type { Memory } from "../consumer.ts";
import type { NbdHost } from "./host.ts";
import { writeU64 } from "./reply.ts";
import {
  EXPORT_NAME_REPLY_BYTES,
  EXPORT_NAME_ZEROES_BYTES,
  GREETING_BYTES,
  Info,
  Magic,
  OPTION_REPLY_BYTES,
  OptionReply,
  STRING_BYTES_MAX,
} from "./wire.ts";

const encoder = new TextEncoder();

/** A piece of the arena that fills up with replies and is empty again once all of them are sent. */
export class ReplyArea {
  readonly #memory: Memory;
  readonly #host: NbdHost;
  readonly #at: number;
  readonly #bytes: number;
  /** Written so far, and handed to the host so far. */
  #used = 0;
  #handed = 0;
  #unsent = 0;

  constructor(memory: Memory, host: NbdHost, at: number, bytes: number) {
    this.#memory = memory;
    this.#host = host;
    this.#at = at;
    this.#bytes = bytes;
  }

  /** Whether this many more bytes fit. If not: after everything is sent they will. */
  hasRoom(bytes: number): boolean {
    return this.#bytes - this.#used >= bytes;
  }

  /** Hands what was written since the last call to the host. */
  send(): void {
    if (this.#used === this.#handed) return;
    const at = this.#at + this.#handed;
    const bytes = this.#used - this.#handed;
    this.#handed = this.#used;
    this.#unsent++;
    this.#host.transmit(at, bytes, -1);
  }

  /** One of the transmissions was sent. */
  sent(): void {
    assert(this.#unsent > 0, "only what was transmitted can be sent");
    this.#unsent--;
    if (this.#unsent > 0 || this.#used !== this.#handed) return;
    this.#used = 0;
    this.#handed = 0;
  }

  /** The server's first words. */
  greeting(flags: number): void {
    const at = this.#take(GREETING_BYTES);
    const view = this.#memory.view;
    view.setUint32(at, Magic.INIT_HIGH);
    view.setUint32(at + 4, Magic.INIT_LOW);
    view.setUint32(at + 8, Magic.OPTION_HIGH);
    view.setUint32(at + 12, Magic.OPTION_LOW);
    view.setUint16(at + 16, flags);
  }

  /** The answer to EXPORT_NAME, which has no header. */
  exportName(size: number, flags: number, zeroes: boolean): void {
    const bytes = EXPORT_NAME_REPLY_BYTES + (zeroes ? EXPORT_NAME_ZEROES_BYTES : 0);
    const at = this.#take(bytes);
    writeU64(this.#memory.view, at, size);
    this.#memory.view.setUint16(at + 8, flags);
    this.#memory.bytes.fill(0, at + EXPORT_NAME_REPLY_BYTES, at + bytes);
  }

  /** ACK. */
  ack(option: number): void {
    this.#reply(option, OptionReply.ACK, 0);
  }

  /** A reply that is nothing but text: an error. */
  text(option: number, type: number, message: string): void {
    const text = encodeString(message);
    this.#memory.bytes.set(text, this.#reply(option, type, text.length));
  }

  /** One entry of a list. */
  server(option: number, name: string, description: string): void {
    const nameText = encodeString(name);
    const descriptionText = encodeString(description);
    const at = this.#reply(option, OptionReply.SERVER, 4 + nameText.length + descriptionText.length);
    this.#memory.view.setUint32(at, nameText.length);
    this.#memory.bytes.set(nameText, at + 4);
    this.#memory.bytes.set(descriptionText, at + 4 + nameText.length);
  }

  /** INFO_EXPORT: size and transmission flags. */
  infoExport(option: number, size: number, flags: number): void {
    const at = this.#reply(option, OptionReply.INFO, 12);
    this.#memory.view.setUint16(at, Info.EXPORT);
    writeU64(this.#memory.view, at + 2, size);
    this.#memory.view.setUint16(at + 10, flags);
  }

  /** INFO_NAME or INFO_DESCRIPTION. */
  infoText(option: number, info: number, value: string): void {
    const text = encodeString(value);
    const at = this.#reply(option, OptionReply.INFO, 2 + text.length);
    this.#memory.view.setUint16(at, info);
    this.#memory.bytes.set(text, at + 2);
  }

  /** INFO_BLOCK_SIZE, in bytes. */
  infoBlockSize(option: number, minimum: number, preferred: number, maximum: number): void {
    const at = this.#reply(option, OptionReply.INFO, 14);
    const view = this.#memory.view;
    view.setUint16(at, Info.BLOCK_SIZE);
    view.setUint32(at + 2, minimum);
    view.setUint32(at + 6, preferred);
    view.setUint32(at + 10, maximum);
  }

  /** A metadata context. */
  metaContext(option: number, id: number, name: string): void {
    const text = encodeString(name);
    const at = this.#reply(option, OptionReply.META_CONTEXT, 4 + text.length);
    this.#memory.view.setUint32(at, id);
    this.#memory.bytes.set(text, at + 4);
  }

  /** An option reply's header; answers where its data goes. */
  #reply(option: number, type: number, bytes: number): number {
    const at = this.#take(OPTION_REPLY_BYTES + bytes);
    const view = this.#memory.view;
    view.setUint32(at, Magic.OPTION_REPLY_HIGH);
    view.setUint32(at + 4, Magic.OPTION_REPLY_LOW);
    view.setUint32(at + 8, option);
    view.setUint32(at + 12, type);
    view.setUint32(at + 16, bytes);
    return at + OPTION_REPLY_BYTES;
  }

  #take(bytes: number): number {
    assert(this.hasRoom(bytes), "room was checked before the option");
    const at = this.#at + this.#used;
    this.#used += bytes;
    return at;
  }
}

/** UTF-8, cut to the longest string that the specification allows, between two characters. */
function encodeString(text: string): Uint8Array {
  const buffer = new Uint8Array(STRING_BYTES_MAX);
  return buffer.subarray(0, encoder.encodeInto(text, buffer).written);
}
