/**
 * Control messages between threads. A thread that sits in its loop is woken through an eventfd, and then takes the
 * messages from an ordinary port. Never used for I/O.
 *
 * @module
 */
import { eventfdRead, eventfdWrite } from "../ffi/libc.ts";
import type { CompletionHandler } from "../ffi/loop.ts";
import type { Engine } from "./engine.ts";

/** One end of a channel between two threads, of which at least the other one may sit in an engine's loop. */
export interface MailboxEnd {
  readonly port: MessagePort;
  /** The eventfd that wakes the other end, or -1 when it runs an ordinary event loop. */
  readonly wakePeer: number;
}

/** Sends a structured-cloneable message to the other end and wakes it. */
export function post(end: MailboxEnd, message: unknown, transfer: Transferable[] = []): void {
  end.port.postMessage(message, transfer);
  if (end.wakePeer >= 0) eventfdWrite(end.wakePeer, 1);
}

/** Receives an engine's control messages. */
export class Mailbox implements CompletionHandler {
  readonly #engine: Engine;
  readonly #wakeFd: number;
  readonly #kind: number;
  /** Messages that were announced through the eventfd and have not arrived. */
  #expected = 0;
  #arrived: (() => void) | null = null;

  /** @param wakeFd the eventfd through which all peers announce one message each time */
  constructor(engine: Engine, wakeFd: number) {
    this.#engine = engine;
    this.#wakeFd = wakeFd;
    this.#kind = engine.loop.register(this);
    engine.loop.pollIn(wakeFd, this.#kind, 0, 0);
  }

  /** Takes messages of this port from now on, each in the order in which it was sent. */
  listen(port: MessagePort, onMessage: (message: unknown) => void): void {
    port.onmessage = (event: MessageEvent) => {
      this.#expected--;
      onMessage(event.data);
      this.#arrived?.();
    };
  }

  complete(_tag: number, _generation: number, result: number): void {
    if (result < 0) throw new Error(`Cannot wait for control messages: errno ${-result}`);
    this.#expected += eventfdRead(this.#wakeFd);
    this.#engine.loop.pollIn(this.#wakeFd, this.#kind, 0, 0);
    this.#engine.deliverMail(() => this.#deliver());
  }

  /** Lets the thread's event loop run until every announced message has been handled. */
  async #deliver(): Promise<void> {
    while (this.#expected > 0) {
      await new Promise<void>((resolve) => this.#arrived = resolve);
    }
    this.#arrived = null;
  }
}
