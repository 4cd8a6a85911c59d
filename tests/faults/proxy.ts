/**
 * A TCP proxy that breaks links in every way that a network knows, in a thread of its own.
 *
 *   dst attach ──▶ proxy ──▶ dst export
 *
 * @module
 */

/** What to do to the connections. */
export type ProxyOrder =
  /** Everything passes, also what was held back. */
  | { readonly do: "pass" }
  /** End all connections. */
  | { readonly do: "cut" }
  /** Reset all connections, and every one that comes. */
  | { readonly do: "refuse" }
  /** Reset each connection somewhere within its next bytes, in the middle of a frame. */
  | { readonly do: "reset"; readonly withinBytes: number }
  /** Nothing passes; all connections stay. */
  | { readonly do: "stall" }
  /** Nothing passes ever again on the present connections, and neither side hears of the other's end. */
  | { readonly do: "halfOpen" }
  | { readonly do: "slow"; readonly bytesPerSecond: number }
  /** Change a bit about every so many bytes. */
  | { readonly do: "corrupt"; readonly everyBytes: number }
  /** Hold everything back for a while, and reset a connection at so many of a hundred pieces. */
  | { readonly do: "lose"; readonly delayMs: number; readonly lossPercent: number }
  | { readonly do: "seed"; readonly seed: number };

/** What the thread says. */
export interface ProxyReport {
  readonly port?: number;
  /** How many connections there have been. */
  readonly count?: number;
  /** How many bits were changed. */
  readonly corrupted?: number;
}

/** The proxy, from outside. */
export class FaultyLink implements Disposable {
  readonly port: number;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (report: ProxyReport) => void>();
  #next = 0;

  private constructor(worker: Worker, port: number) {
    this.#worker = worker;
    this.port = port;
    worker.onmessage = ({ data }) => {
      this.#waiting.get(data.id)!(data);
      this.#waiting.delete(data.id);
    };
  }

  /** Listens on a free port, before an exporter on a port of this machine. */
  static async to(address: string, seed: number): Promise<FaultyLink> {
    const worker = new Worker(new URL("./proxy_worker.ts", import.meta.url), { type: "module" });
    const port = await new Promise<number>((resolve) => {
      worker.onmessage = ({ data }) => resolve(data.port);
      worker.postMessage({ target: Number(address.split(":").at(-1)) });
    });
    const link = new FaultyLink(worker, port);
    await link.do({ do: "seed", seed });
    return link;
  }

  /** Does something to the connections, from the answer on. */
  do(order: ProxyOrder): Promise<ProxyReport> {
    const id = this.#next++;
    const answer = new Promise<ProxyReport>((resolve) => this.#waiting.set(id, resolve));
    this.#worker.postMessage({ id, order });
    return answer;
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }
}
