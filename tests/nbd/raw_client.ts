/**
 * An NBD client that does what well-behaved ones don't: ask for what is out of range, stop in the middle, vanish.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Option } from "../../protocol/nbd/wire.ts";
import { CLIENT_FLAGS, open, request } from "./client.ts";
import type { NbdTarget } from "./place.ts";

const GREETING_BYTES = 18;
const OPTION_REPLY_BYTES = 20;
const SIMPLE_REPLY_BYTES = 16;
/** NBD_REP_ACK. */
const ACK = 1;
/** From here on option replies are errors. */
const FIRST_ERROR = 0x80000000;

/** The server does not give the export. */
export class RefusedError extends Error {}

/** A connection in transmission, with simple replies. */
export class RawClient {
  #cookie = 0;

  private constructor(readonly connection: Deno.Conn) {}

  /**
   * Connects and goes through the handshake.
   *
   * @throws {RefusedError} with the server's words
   */
  static async connect(target: NbdTarget, name: string): Promise<RawClient> {
    const client = new RawClient(await target.connect());
    await client.read(GREETING_BYTES);
    await client.send(CLIENT_FLAGS);
    await client.send(open(Option.GO, name));
    for (;;) {
      const reply = new DataView((await client.read(OPTION_REPLY_BYTES)).buffer);
      const data = await client.read(reply.getUint32(16));
      const type = reply.getUint32(12);
      if (type === ACK) return client;
      if (type < FIRST_ERROR) continue;
      client.close();
      throw new RefusedError(new TextDecoder().decode(data));
    }
  }

  /** Sends a request, without waiting for anything. */
  async ask(command: number, offset: number, length: number, payload?: Uint8Array): Promise<void> {
    await this.send(request(command, ++this.#cookie, offset, length, 0, payload));
  }

  /** Does a request that brings no data; gives the error, 0 for success. */
  async do(command: number, offset: number, length: number, payload?: Uint8Array): Promise<number> {
    await this.ask(command, offset, length, payload);
    return new DataView((await this.read(SIMPLE_REPLY_BYTES)).buffer).getUint32(4);
  }

  /** Sends bytes. */
  async send(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) sent += await this.connection.write(bytes.subarray(sent));
  }

  /** Exactly so many bytes. */
  async read(bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const all = new Uint8Array(bytes);
    for (let filled = 0; filled < bytes;) {
      const count = await this.connection.read(all.subarray(filled));
      assert(count !== null, "the server has closed the connection");
      filled += count;
    }
    return all;
  }

  /** Goes away without a word. */
  close(): void {
    this.connection.close();
  }
}
