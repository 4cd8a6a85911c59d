/**
 * The control socket of a daemon: one JSON object a line, one answer a request.
 *
 * @module
 */
import { Failure, messageOf } from "./failure.ts";
import { removeIfThere } from "./runtime.ts";

/** What a daemon does when it is asked. The results are sent as JSON. */
export interface ControlHandlers {
  status(): Promise<unknown>;
  /** Detaches; its error is the answer when that is refused. */
  detach(force: boolean): Promise<void>;
  /** Changes settings, and answers with all that count now; its error is the answer when that is refused. */
  set(settings: unknown): Promise<unknown>;
}

/** A request. */
export type ControlRequest =
  | { readonly command: "status" }
  | { readonly command: "detach"; readonly force: boolean }
  | { readonly command: "set"; readonly settings: Readonly<Record<string, unknown>> };

type ControlAnswer = { readonly ok: true; readonly result: unknown } | { readonly ok: false; readonly error: string };

/** No request is nearly as long; a longer line is not one of ours. */
const REQUEST_BYTES_MAX = 4096;
/** The status of an exporter with a thousand exports and sessions fits. */
const ANSWER_BYTES_MAX = 4 * 1024 * 1024;

/** A control socket that answers. */
export class ControlServer {
  readonly #listener: Deno.UnixListener;
  readonly #handlers: ControlHandlers;
  readonly #connections = new Set<Deno.UnixConn>();
  readonly #answering = new Set<Promise<void>>();

  /**
   * Listens. Somebody else's socket of that name is replaced, as the directory is the user's own.
   *
   * @param path of the socket
   */
  constructor(path: string, handlers: ControlHandlers) {
    removeIfThere(path);
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#handlers = handlers;
    this.#accept();
  }

  /** Takes no more requests, sends the answers to those that are there, and closes. */
  async close(): Promise<void> {
    this.#listener.close();
    while (this.#answering.size > 0) await Promise.all(this.#answering);
    for (const connection of this.#connections) closeQuietly(connection);
  }

  async #accept(): Promise<void> {
    try {
      for await (const connection of this.#listener) this.#serve(connection);
    } catch {
      // The listener was closed: there is nothing more to accept.
    }
  }

  async #serve(connection: Deno.UnixConn): Promise<void> {
    this.#connections.add(connection);
    try {
      for await (const line of lines(connection, REQUEST_BYTES_MAX)) {
        const answered = this.#answer(line).then((answer) => writeLine(connection, answer));
        // Whoever asked may have gone: the answer is then nobody's.
        const settled = answered.catch(() => {});
        this.#answering.add(settled);
        await settled;
        this.#answering.delete(settled);
      }
    } catch {
      // A connection that breaks, or a line that is too long, ends the connection and nothing else.
    }
    this.#connections.delete(connection);
    closeQuietly(connection);
  }

  async #answer(line: string): Promise<ControlAnswer> {
    try {
      const request = JSON.parse(line) as Partial<ControlRequest>;
      if (request?.command === "status") return { ok: true, result: await this.#handlers.status() };
      if (request?.command === "detach") {
        await this.#handlers.detach(request.force === true);
        return { ok: true, result: null };
      }
      if (request?.command === "set") return { ok: true, result: await this.#handlers.set(request.settings) };
      return { ok: false, error: `Unknown command ${JSON.stringify(request?.command)}` };
    } catch (error) {
      return { ok: false, error: messageOf(error) };
    }
  }
}

/**
 * Asks a daemon.
 *
 * @param path of its control socket
 * @param timeoutMs how long to wait for the answer; Infinity without end
 * @returns the result
 * @throws {Failure} with the daemon's message when it refuses, or one that says that it does not answer
 */
export async function callControl(path: string, request: ControlRequest, timeoutMs: number): Promise<unknown> {
  let connection: Deno.UnixConn;
  try {
    connection = await Deno.connect({ transport: "unix", path });
  } catch (error) {
    throw new Failure(`The daemon does not answer: ${messageOf(error)}`);
  }
  let expired = false;
  const timer = Number.isFinite(timeoutMs)
    ? setTimeout(() => {
      expired = true;
      closeQuietly(connection);
    }, timeoutMs)
    : undefined;
  try {
    await writeLine(connection, request);
    for await (const line of lines(connection, ANSWER_BYTES_MAX)) {
      const answer = JSON.parse(line) as ControlAnswer;
      if (answer.ok) return answer.result;
      throw new Failure(answer.error);
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(`The daemon does not answer: ${expired ? `nothing came in ${timeoutMs} ms` : messageOf(error)}`);
  } finally {
    clearTimeout(timer);
    closeQuietly(connection);
  }
  throw new Failure(`The daemon does not answer: ${expired ? `nothing came in ${timeoutMs} ms` : "it has ended"}`);
}

/** Sends one object as a line. */
export async function writeLine(connection: Deno.Conn, value: unknown): Promise<void> {
  const bytes = new TextEncoder().encode(JSON.stringify(value) + "\n");
  for (let written = 0; written < bytes.length;) written += await connection.write(bytes.subarray(written));
}

/**
 * The lines that arrive, without their ends. What comes after the last newline is dropped.
 *
 * @throws {RangeError} when a line is longer than the limit
 */
export async function* lines(connection: Deno.Conn, bytesMax: number): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(16 * 1024);
  let text = "";
  for (;;) {
    const count = await connection.read(buffer);
    if (count === null) return;
    text += decoder.decode(buffer.subarray(0, count), { stream: true });
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      yield line;
    }
    if (text.length > bytesMax) throw new RangeError(`A line is longer than ${bytesMax} bytes`);
  }
}

function closeQuietly(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // It is closed already.
  }
}
