/**
 * The middle man's own thread: passes bytes on between a client and an exporter, and does to them what it is told.
 *
 * @module
 */
import net from "node:net";
import type { Buffer } from "node:buffer";
import { Random } from "../../engine/random.ts";
import type { ProxyOrder, ProxyReport } from "./proxy.ts";

/** How often what is held back is looked at, in milliseconds. */
const STEP_MS = 5;

/** What is on its way in one direction. */
interface Piece {
  readonly bytes: Buffer;
  readonly dueMs: number;
}

/** One direction of one connection. */
class Way {
  readonly #pair: Pair;
  readonly #to: net.Socket;
  readonly #from: net.Socket;
  #pieces: Piece[] = [];
  #left = 0;

  constructor(pair: Pair, from: net.Socket, to: net.Socket) {
    this.#pair = pair;
    this.#from = from;
    this.#to = to;
    from.on("data", (bytes: Buffer) => this.#take(bytes));
    to.on("drain", () => this.#pair.isHalfOpen || from.resume());
  }

  #take(bytes: Buffer): void {
    const { proxy } = this.#pair;
    if (this.#pair.isHalfOpen) return;
    if (proxy.lossPercent > 0 && proxy.random.next() * 100 < proxy.lossPercent) return this.#pair.reset();
    if (proxy.corruptEvery > 0) {
      this.#left -= bytes.length;
      if (this.#left < 0) {
        bytes[proxy.random.below(bytes.length)] ^= 1 << proxy.random.below(8);
        this.#left = proxy.corruptEvery;
        proxy.corrupted++;
      }
    }
    if (this.#pieces.length === 0 && proxy.isClear) this.#pass(bytes);
    else {
      this.#pieces.push({ bytes, dueMs: performance.now() + proxy.delayMs });
      // The kernel's buffers fill then, as on a real link.
      if (!proxy.isClear && proxy.delayMs === 0) this.#from.pause();
    }
  }

  /** Passes on what is due. */
  step(): void {
    const { proxy } = this.#pair;
    if (proxy.isStalled) return;
    let allowed = proxy.bytesPerSecond > 0 ? proxy.bytesPerSecond * STEP_MS / 1000 : Infinity;
    const now = performance.now();
    while (this.#pieces.length > 0 && allowed > 0 && this.#pieces[0].dueMs <= now) {
      const { bytes, dueMs } = this.#pieces.shift()!;
      if (bytes.length > allowed) this.#pieces.unshift({ bytes: bytes.subarray(allowed), dueMs });
      this.#pass(bytes.subarray(0, Math.min(bytes.length, allowed)));
      allowed -= bytes.length;
    }
    if (this.#pieces.length === 0) this.#from.resume();
  }

  #pass(bytes: Buffer): void {
    if (this.#pair.cutAfter > 0) {
      this.#pair.cutAfter -= bytes.length;
      if (this.#pair.cutAfter <= 0) {
        // Some of a frame gets through, and no more.
        this.#to.write(bytes.subarray(0, bytes.length >> 1));
        return this.#pair.reset();
      }
    }
    if (!this.#to.write(bytes)) this.#from.pause();
  }
}

/** One client's connection and the one that it stands for. */
class Pair {
  isHalfOpen = false;
  /** Reset after so many bytes; 0: not. */
  cutAfter = 0;
  readonly ways: readonly Way[];

  constructor(readonly proxy: Proxy, readonly near: net.Socket, readonly far: net.Socket) {
    this.ways = [new Way(this, near, far), new Way(this, far, near)];
    for (const [one, other] of [[near, far], [far, near]]) {
      one.setNoDelay(true);
      one.on("error", () => {});
      one.on("close", () => {
        // A peer that is out of reach does not hear of the other's end.
        if (!this.isHalfOpen) other.destroy();
        proxy.pairs.delete(this);
      });
    }
  }

  reset(): void {
    this.near.resetAndDestroy();
    this.far.resetAndDestroy();
  }
}

/** All connections, and what is done to them. */
class Proxy {
  readonly pairs = new Set<Pair>();
  random = new Random(1);
  isStalled = false;
  isRefusing = false;
  delayMs = 0;
  lossPercent = 0;
  bytesPerSecond = 0;
  corruptEvery = 0;
  corrupted = 0;
  count = 0;
  readonly #server: net.Server;

  constructor(target: number) {
    this.#server = net.createServer((near) => {
      near.on("error", () => {});
      this.count++;
      if (this.isRefusing) return near.resetAndDestroy();
      const far = net.connect(target, "127.0.0.1");
      this.pairs.add(new Pair(this, near, far));
    });
    this.#server.listen(0, "127.0.0.1", () => tell({ port: (this.#server.address() as net.AddressInfo).port }));
    setInterval(() => {
      for (const { ways } of this.pairs) for (const way of ways) way.step();
    }, STEP_MS);
  }

  /** Whether bytes pass at once. */
  get isClear(): boolean {
    return !this.isStalled && this.delayMs === 0 && this.bytesPerSecond === 0;
  }

  obey(order: ProxyOrder): void {
    switch (order.do) {
      case "pass":
        this.isStalled = false;
        this.isRefusing = false;
        this.delayMs =
          this.lossPercent =
          this.bytesPerSecond =
          this.corruptEvery =
            0;
        return;
      case "cut":
        for (const { near, far } of this.pairs) {
          near.destroy();
          far.destroy();
        }
        return;
      case "refuse":
        this.isRefusing = true;
        for (const pair of this.pairs) pair.reset();
        return;
      case "reset":
        for (const pair of this.pairs) pair.cutAfter = 1 + this.random.below(order.withinBytes);
        return;
      case "stall":
        this.isStalled = true;
        return;
      case "halfOpen":
        for (const pair of this.pairs) pair.isHalfOpen = true;
        return;
      case "slow":
        this.bytesPerSecond = order.bytesPerSecond;
        return;
      case "corrupt":
        this.corruptEvery = order.everyBytes;
        return;
      case "lose":
        this.delayMs = order.delayMs;
        this.lossPercent = order.lossPercent;
        return;
      case "seed":
        this.random = new Random(order.seed);
    }
  }
}

const scope = self as unknown as {
  postMessage(report: ProxyReport & { readonly id?: number }): void;
  onmessage: ((message: MessageEvent) => void) | null;
};
const tell = (report: ProxyReport) => scope.postMessage(report);

let proxy: Proxy;
scope.onmessage = ({ data }) => {
  if (typeof data.target === "number") {
    proxy = new Proxy(data.target);
    return;
  }
  proxy.obey(data.order);
  scope.postMessage({ id: data.id, count: proxy.count, corrupted: proxy.corrupted });
};
