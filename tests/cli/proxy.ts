/**
 * A middle man that passes bytes on, and can cut single connections.
 *
 * @module
 */

/** Listens on a free port and passes each connection on to another. */
export class Proxy implements Disposable {
  readonly port: number;
  readonly #listener: Deno.TcpListener;
  readonly #target: number;
  readonly #pairs: (readonly [Deno.TcpConn, Deno.TcpConn])[] = [];

  /** @param target a port of this machine */
  constructor(target: number) {
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#target = target;
    this.port = this.#listener.addr.port;
    this.#accept();
  }

  /** How many connections there have been. */
  get count(): number {
    return this.#pairs.length;
  }

  /** Cuts a connection, by the order in which they came. */
  cut(index: number): void {
    for (const side of this.#pairs[index]) closeQuietly(side);
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    for (const index of this.#pairs.keys()) this.cut(index);
  }

  async #accept(): Promise<void> {
    for await (const near of this.#listener) {
      const far = await Deno.connect({ hostname: "127.0.0.1", port: this.#target });
      this.#pairs.push([near, far]);
      pass(near, far);
      pass(far, near);
    }
  }
}

async function pass(from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(64 * 1024);
  try {
    for (let count = await from.read(buffer); count !== null; count = await from.read(buffer)) {
      for (let written = 0; written < count;) written += await to.write(buffer.subarray(written, count));
    }
  } catch {
    // One of them was cut.
  }
  closeQuietly(from);
  closeQuietly(to);
}

function closeQuietly(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // It is closed already.
  }
}
