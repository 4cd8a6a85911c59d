/**
 * For the tests: the client's half of the NBD protocol. It writes what clients send and reads what servers answer,
 * strictly: whatever the specification forbids in an answer is an assertion.
 *
 * @module
 */
import assert from "node:assert/strict";
import { concat, type TestHost } from "./host.ts";
import { Command, Option } from "../../protocol/nbd/wire.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The client's flags: fixed newstyle and no zeroes. */
export const CLIENT_FLAGS = u32(3);

/** 16 bits, big-endian. */
export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

/** 32 bits, big-endian. */
export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** 64 bits, big-endian. */
export function u64(value: number | bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}

/** UTF-8. */
export function text(value: string): Uint8Array {
  return encoder.encode(value);
}

/** An option with its data. */
export function option(type: number, ...data: Uint8Array[]): Uint8Array {
  const all = concat(...data);
  return concat(text("IHAVEOPT"), u32(type), u32(all.length), all);
}

/** INFO or GO. */
export function open(type: number, name: string, infos: number[] = []): Uint8Array {
  const bytes = text(name);
  return option(type, u32(bytes.length), bytes, u16(infos.length), ...infos.map(u16));
}

/** LIST_META_CONTEXT or SET_META_CONTEXT. */
export function meta(type: number, name: string, ...queries: string[]): Uint8Array {
  const bytes = text(name);
  const data = queries.flatMap((query) => [u32(text(query).length), text(query)]);
  return option(type, u32(bytes.length), bytes, u32(queries.length), ...data);
}

/** A request's header, and for a write its payload. */
export function request(
  command: number,
  cookie: number | bigint,
  offset: number | bigint,
  length: number,
  flags = 0,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  return concat(u32(0x25609513), u16(flags), u16(command), u64(cookie), u64(offset), u32(length), payload);
}

/** A write with its payload. */
export function write(cookie: number, offset: number, payload: Uint8Array, flags = 0): Uint8Array {
  return request(Command.WRITE, cookie, offset, payload.length, flags, payload);
}

/** One reply to an option. */
export interface OptionAnswer {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array;
}

/** Reads option replies until the bytes end. */
export function readOptionAnswers(bytes: Uint8Array): OptionAnswer[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const answers: OptionAnswer[] = [];
  for (let at = 0; at < bytes.length;) {
    assert.equal(view.getBigUint64(at), 0x3e889045565a9n);
    const length = view.getUint32(at + 16);
    const data = bytes.slice(at + 20, at + 20 + length);
    assert.equal(data.length, length);
    answers.push({ option: view.getUint32(at + 8), type: view.getUint32(at + 12), data });
    at += 20 + length;
  }
  return answers;
}

/** What came of a request. */
export interface Answer {
  /** The error value, 0 for success. */
  error: number;
  /** The text of an error. */
  message: string;
  /** The offset of an error chunk that has one. */
  errorOffset: number | null;
  /** Data of a READ, put together. */
  data: Uint8Array;
  /** Content chunks, 0 for simple replies. */
  chunks: number;
  /** Descriptors of a BLOCK_STATUS: length and flags. */
  descriptors: [number, number][];
  done: boolean;
}

/** A request that waits for its answer. */
export interface Asked {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
}

/** Reads replies until the bytes end. Answers by cookie; each request must be answered once. */
export function readAnswers(bytes: Uint8Array, asked: Map<number, Asked>, structured: boolean): Map<number, Answer> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const answers = new Map<number, Answer>();
  for (let at = 0; at < bytes.length;) {
    const magic = view.getUint32(at);
    const cookie = Number(view.getBigUint64(at + 8));
    const question = asked.get(cookie);
    assert(question !== undefined, `an answer to a request that was not made: ${cookie}`);
    const answer = answers.get(cookie) ??
      { error: 0, message: "", errorOffset: null, data: new Uint8Array(0), chunks: 0, descriptors: [], done: false };
    assert(!answer.done, `a second answer to ${cookie}`);
    answers.set(cookie, answer);
    if (magic === 0x67446698) {
      assert(!structured || question.command !== Command.READ, "a READ has structured replies when they are agreed");
      answer.error = view.getUint32(at + 4);
      answer.done = true;
      at += 16;
      if (question.command === Command.READ && answer.error === 0) {
        answer.data = bytes.slice(at, at + question.length);
        assert.equal(answer.data.length, question.length);
        at += question.length;
      }
    } else {
      assert.equal(magic, 0x668e33ef);
      assert(structured, "structured replies were not agreed");
      const length = view.getUint32(at + 16);
      assert(at + 20 + length <= bytes.length);
      readChunk(
        answer,
        question,
        view.getUint16(at + 4),
        view.getUint16(at + 6),
        bytes.slice(at + 20, at + 20 + length),
      );
      at += 20 + length;
    }
  }
  return answers;
}

const covered = new WeakMap<Answer, Set<number>>();

function readChunk(answer: Answer, asked: Asked, flags: number, type: number, body: Uint8Array): void {
  const view = new DataView(body.buffer);
  assert((flags & ~1) === 0);
  answer.done = flags === 1;
  if (type === 0) {
    assert(answer.done && body.length === 0);
  } else if (type === 1) {
    assert(asked.command === Command.READ && body.length >= 9);
    const from = Number(view.getBigUint64(0)) - asked.offset;
    assert(from >= 0 && from + body.length - 8 <= asked.length);
    if (answer.data.length === 0) answer.data = new Uint8Array(asked.length);
    const seen = covered.get(answer) ?? new Set<number>();
    assert(!seen.has(from), "chunks don't overlap");
    covered.set(answer, seen.add(from));
    answer.data.set(body.subarray(8), from);
    answer.chunks++;
  } else if (type === 5) {
    assert(asked.command === Command.BLOCK_STATUS && body.length >= 12 && (body.length - 4) % 8 === 0);
    assert.equal(view.getUint32(0), 1);
    for (let i = 4; i < body.length; i += 8) answer.descriptors.push([view.getUint32(i), view.getUint32(i + 4)]);
  } else {
    assert(type === 0x8001 || type === 0x8002);
    const messageBytes = view.getUint16(4);
    assert.equal(body.length, 6 + messageBytes + (type === 0x8002 ? 8 : 0));
    answer.error = view.getUint32(0);
    assert.notEqual(answer.error, 0);
    answer.message = decoder.decode(body.subarray(6, 6 + messageBytes));
    if (type === 0x8002) answer.errorOffset = Number(view.getBigUint64(6 + messageBytes));
  }
}

/** A client in transmission on a test host. */
export class TestClient {
  readonly #host: TestHost;
  readonly #structured: boolean;
  readonly #asked = new Map<number, Asked>();
  #cookie = 0;

  /** Goes through the handshake. */
  constructor(host: TestHost, options: { structured?: boolean; allocation?: boolean } = {}) {
    this.#host = host;
    this.#structured = options.structured ?? false;
    host.feed(CLIENT_FLAGS);
    if (this.#structured) host.feed(option(Option.STRUCTURED_REPLY));
    if (options.allocation === true) host.feed(meta(Option.SET_META_CONTEXT, "disk", "base:allocation"));
    host.feed(open(Option.GO, "disk"));
    host.takeOutput();
  }

  /** The bytes of a request; its answer is expected from now on. */
  ask(command: number, offset: number, length: number, flags = 0, payload?: Uint8Array): Uint8Array {
    const cookie = ++this.#cookie;
    this.#asked.set(cookie, { command, offset, length });
    return request(command, cookie, offset, length, flags, payload);
  }

  /** The bytes of a WRITE. */
  askWrite(offset: number, payload: Uint8Array, flags = 0): Uint8Array {
    return this.ask(Command.WRITE, offset, payload.length, flags, payload);
  }

  /** Does one request and answers what came of it. */
  do(command: number, offset: number, length: number, flags = 0, payload?: Uint8Array): Answer {
    this.#host.feed(this.ask(command, offset, length, flags, payload));
    return this.answers().get(this.#cookie)!;
  }

  /** All answers that have come; those to all requests so far are demanded, unless the connection has ended. */
  answers(): Map<number, Answer> {
    const answers = readAnswers(this.#host.takeOutput(), this.#asked, this.#structured);
    if (!this.#host.cut && !this.#host.closed) assert.equal(answers.size, this.#asked.size);
    for (const answer of answers.values()) assert(answer.done);
    this.#asked.clear();
    return answers;
  }
}
