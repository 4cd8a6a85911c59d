/**
 * A listening socket on the engine's loop.
 *
 * @module
 */
import type { CompletionHandler } from "../ffi/loop.ts";
import { Errno } from "../ffi/errno.ts";
import type { Engine } from "./engine.ts";

/** How long to wait before accepting again after the process has run out of descriptors or memory. */
const RETRY_MS = 100;

/** Accepts connections until it is closed. Several may share a socket, each with a descriptor of its own. */
export class Listener implements CompletionHandler {
  readonly #engine: Engine;
  readonly #fd: number;
  readonly #kind: number;
  readonly #onAccept: (fd: number) => void;
  #closing = false;
  #accepting = false;

  /**
   * @param fd a listening socket; it is the listener's from now on
   * @param onAccept gets each connected socket, which is then its own
   */
  constructor(engine: Engine, fd: number, onAccept: (fd: number) => void) {
    this.#engine = engine;
    this.#fd = fd;
    this.#onAccept = onAccept;
    this.#kind = engine.loop.register(this);
    this.#accept();
  }

  complete(_tag: number, _generation: number, result: number): void {
    this.#accepting = false;
    if (this.#closing) {
      if (result >= 0) this.#engine.loop.calls.close(result);
      this.#engine.loop.calls.close(this.#fd);
      return;
    }
    if (result >= 0) {
      this.#onAccept(result);
      this.#accept();
    } else if (result === -Errno.EMFILE || result === -Errno.ENFILE || result === -Errno.ENOMEM) {
      this.#engine.timers.schedule({ expire: () => this.#accept() }, 0, this.#engine.now + RETRY_MS);
    } else if (result === -Errno.EINVAL) {
      // The socket listens no more: another listener that shares it was closed. Asking again would spin.
    } else {
      // What is left (ECONNABORTED, EINTR, a peer's network error) concerns one connection that is gone already.
      this.#accept();
    }
  }

  /** Ends listening, also for those who share the socket. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#accepting) this.#engine.loop.calls.shutdown(this.#fd, 2);
    else this.#engine.loop.calls.close(this.#fd);
  }

  #accept(): void {
    if (this.#closing) return;
    this.#accepting = true;
    this.#engine.loop.accept(this.#fd, this.#kind, 0, 0);
  }
}
