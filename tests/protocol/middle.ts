/**
 * A man in the middle: passes on what a client and an exporter say to each other, keeps a copy, and may change bytes.
 *
 * @module
 */

/** `up`: from the client to the exporter. */
export type Way = "up" | "down";

/** What is done to one byte of a connection. */
export interface Harm {
  readonly way: Way;
  /** Its place in the stream of that way, from 0. */
  readonly at: number;
  /** It is XORed with this. */
  readonly mask: number;
  /** After so many bytes of that way its receiver is told that nothing more comes. Not given: never. */
  readonly endsAfter?: number;
}

/** Listens on a port of its own. */
export class Middle {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #connections: Deno.TcpConn[] = [];
  readonly #to: { readonly host: string; readonly port: number };
  readonly #pieces: Record<Way, Uint8Array[]> = { up: [], down: [] };
  /** What is to be done to the next connections. */
  harm: Harm | null = null;

  constructor(to: { readonly host: string; readonly port: number }) {
    this.#to = to;
    this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** All that has gone that way, of all connections, as it was received. */
  captured(way: Way): Uint8Array {
    const pieces = this.#pieces[way];
    const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    for (const connection of this.#connections) closeQuietly(connection);
  }

  async #accept(): Promise<void> {
    for (;;) {
      const client = await this.#listener.accept().catch(() => null);
      if (client === null) return;
      const { host, port } = this.#to;
      const exporter = await Deno.connect({ hostname: host, port }).catch(() => null);
      if (exporter === null) {
        client.close();
        continue;
      }
      for (const connection of [client, exporter]) connection.setNoDelay(true);
      this.#connections.push(client, exporter);
      this.#pump("up", client, exporter);
      this.#pump("down", exporter, client);
    }
  }

  async #pump(way: Way, from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
    const harm = this.harm?.way === way ? this.harm : null;
    const bytes = new Uint8Array(65536);
    try {
      for (let passed = 0;;) {
        const count = await from.read(bytes);
        if (count === null) break;
        const piece = bytes.slice(0, count);
        this.#pieces[way].push(piece.slice());
        if (harm !== null && harm.at >= passed && harm.at < passed + count) piece[harm.at - passed] ^= harm.mask;
        passed += count;
        for (let at = 0; at < count;) at += await to.write(piece.subarray(at));
        if (harm?.endsAfter !== undefined && passed >= harm.endsAfter) break;
      }
      await to.closeWrite();
    } catch {
      // One of them has gone: so must the other.
      closeQuietly(from);
      closeQuietly(to);
    }
  }
}

function closeQuietly(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch (error) {
    // It was closed before.
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}

/** Bytes of a block that must not be found. */
const BLOCK = 16;

/** Whether any 16 consecutive bytes of `content` stand anywhere in `stream`. */
export function showsAny(stream: Uint8Array, content: Uint8Array): boolean {
  const contentView = new DataView(content.buffer, content.byteOffset, content.length);
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  /** By their first four bytes. */
  const places = new Map<number, number[]>();
  for (let at = 0; at + BLOCK <= content.length; at++) {
    const start = contentView.getUint32(at);
    const known = places.get(start);
    if (known === undefined) places.set(start, [at]);
    else known.push(at);
  }
  const isSame = (place: number, at: number) => {
    for (let i = 4; i < BLOCK; i += 4) if (contentView.getUint32(place + i) !== view.getUint32(at + i)) return false;
    return true;
  };
  for (let at = 0; at + BLOCK <= stream.length; at++) {
    if (places.get(view.getUint32(at))?.some((place) => isSame(place, at))) return true;
  }
  return false;
}
