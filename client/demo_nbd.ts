/**
 * A small NBD client for the demo: what `doc/proto.md` of the NBD project calls fixed newstyle with simple replies.
 *
 * @module
 */
import type { DemoDisk } from "./demo_disk.ts";

const NBDMAGIC = 0x4e42444d41474943n;
const IHAVEOPT = 0x49484156454f5054n;
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
/** NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES. */
const CLIENT_FLAGS = 3;
const OPTION_GO = 7;
const REPLY_ACK = 1;
const REPLY_INFO = 3;
const INFO_EXPORT = 0;
const Command = { READ: 0, WRITE: 1, DISCONNECT: 2, FLUSH: 3 } as const;
const REQUEST_BYTES = 28;
const SIMPLE_REPLY_BYTES = 16;
/** An option reply with an error text is much shorter. */
const OPTION_REPLY_BYTES_MAX = 64 * 1024;

interface Waiting {
  /** Where the data of a READ goes. */
  readonly into: Uint8Array | null;
  resolve(): void;
  reject(error: Error): void;
}

/** A connection to an NBD server, in the transmission phase. */
export class NbdDisk implements DemoDisk {
  readonly concurrency = 16;
  readonly #connection: Deno.Conn;
  readonly #waiting = new Map<bigint, Waiting>();
  #cookie = 0n;
  #sending: Promise<void> = Promise.resolve();
  #broken: Error | null = null;

  private constructor(connection: Deno.Conn, readonly size: number) {
    this.#connection = connection;
    this.#receive();
  }

  /**
   * Connects to a server's default export.
   *
   * @throws {Error} when the server refuses or does not speak the protocol
   */
  static async connect(path: string): Promise<NbdDisk> {
    const connection = await Deno.connect({ transport: "unix", path });
    try {
      return new NbdDisk(connection, await negotiate(connection));
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#request(Command.WRITE, offset, data.length, data, null);
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#request(Command.READ, offset, into.length, null, into);
  }

  flush(): Promise<void> {
    return this.#request(Command.FLUSH, 0, 0, null, null);
  }

  /** NBD has no cache of its own: there is nothing to drop. */
  dropCache(): Promise<void> {
    return Promise.resolve();
  }

  async close(): Promise<void> {
    await this.#send(requestOf(Command.DISCONNECT, 0n, 0, 0), null);
    this.#broken = new Error("The connection is closed");
    this.#connection.close();
  }

  async #request(
    command: number,
    offset: number,
    length: number,
    data: Uint8Array | null,
    into: Uint8Array | null,
  ): Promise<void> {
    if (this.#broken !== null) throw this.#broken;
    const cookie = this.#cookie++;
    const reply = new Promise<void>((resolve, reject) => this.#waiting.set(cookie, { into, resolve, reject }));
    // A broken connection rejects the reply as well: it is awaited below in any case.
    reply.catch(() => {});
    await this.#send(requestOf(command, cookie, offset, length), data);
    await reply;
  }

  #send(header: Uint8Array, data: Uint8Array | null): Promise<void> {
    const sent = this.#sending.then(async () => {
      await writeAll(this.#connection, header);
      if (data !== null) await writeAll(this.#connection, data);
    });
    this.#sending = sent.catch(() => {});
    return sent;
  }

  async #receive(): Promise<void> {
    const header = new Uint8Array(SIMPLE_REPLY_BYTES);
    const view = new DataView(header.buffer);
    try {
      for (;;) {
        await readFully(this.#connection, header);
        if (view.getUint32(0) !== SIMPLE_REPLY_MAGIC) throw new Error("The NBD server sent something that is no reply");
        const cookie = view.getBigUint64(8);
        const waiting = this.#waiting.get(cookie);
        if (waiting === undefined) throw new Error("The NBD server answered a request that was not made");
        this.#waiting.delete(cookie);
        const error = view.getUint32(4);
        if (error !== 0) {
          waiting.reject(new Error(`The NBD server answered with error ${error}`));
          continue;
        }
        if (waiting.into !== null) await readFully(this.#connection, waiting.into);
        waiting.resolve();
      }
    } catch (error) {
      this.#broken ??= error as Error;
      for (const { reject } of this.#waiting.values()) reject(this.#broken);
      this.#waiting.clear();
    }
  }
}

/** Goes through the handshake; gives the size of the export in bytes. */
async function negotiate(connection: Deno.Conn): Promise<number> {
  const hello = new DataView(new ArrayBuffer(18));
  await readFully(connection, bytesOf(hello));
  if (hello.getBigUint64(0) !== NBDMAGIC || hello.getBigUint64(8) !== IHAVEOPT) {
    throw new Error("The server does not speak NBD");
  }
  // Client flags, then NBD_OPT_GO for the default export: an empty name, and no information asked for.
  const go = new DataView(new ArrayBuffer(4 + 16 + 6));
  go.setUint32(0, CLIENT_FLAGS);
  go.setBigUint64(4, IHAVEOPT);
  go.setUint32(12, OPTION_GO);
  go.setUint32(16, 6);
  await writeAll(connection, bytesOf(go));
  let size = -1;
  for (;;) {
    const reply = new DataView(new ArrayBuffer(20));
    await readFully(connection, bytesOf(reply));
    const type = reply.getUint32(12);
    const length = reply.getUint32(16);
    if (reply.getBigUint64(0) !== OPTION_REPLY_MAGIC || length > OPTION_REPLY_BYTES_MAX) {
      throw new Error("The NBD server sent something that is no reply to an option");
    }
    const data = new DataView(new ArrayBuffer(length));
    await readFully(connection, bytesOf(data));
    if (type === REPLY_ACK && size >= 0) return size;
    if (type === REPLY_INFO && length >= 12 && data.getUint16(0) === INFO_EXPORT) size = Number(data.getBigUint64(2));
    if (type >= 0x80000000) throw new Error(`The NBD server refuses: ${new TextDecoder().decode(data) || type}`);
    if (type === REPLY_ACK) throw new Error("The NBD server did not say how large the disk is");
  }
}

function requestOf(command: number, cookie: bigint, offset: number, length: number): Uint8Array {
  const request = new DataView(new ArrayBuffer(REQUEST_BYTES));
  request.setUint32(0, REQUEST_MAGIC);
  request.setUint16(6, command);
  request.setBigUint64(8, cookie);
  request.setBigUint64(16, BigInt(offset));
  request.setUint32(24, length);
  return bytesOf(request);
}

function bytesOf(view: DataView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(view.buffer);
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await connection.write(bytes.subarray(written));
}

async function readFully(connection: Deno.Conn, into: Uint8Array): Promise<void> {
  for (let filled = 0; filled < into.length;) {
    const count = await connection.read(into.subarray(filled));
    if (count === null) throw new Error("The NBD server closed the connection");
    filled += count;
  }
}
