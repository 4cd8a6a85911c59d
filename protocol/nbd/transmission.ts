/**
 * The transmission phase of the NBD server.
 *
 * Only the request at the head of the stream starts parts; all others have theirs under way or ended. A request that
 * finds no free slot makes the stream wait, and goes on when a slot comes back. What is under way never waits for what
 * is not: so any request makes progress with a single slot.
 *
 * A long READ with simple replies is one header and then the data in order, with nothing between: other replies are held
 * back until it is through. That can't block it: either all its parts are under way, or it is at the head and gets every
 * slot that comes back, its own among them. An error after the header can't be told to the client any more, and the
 * connection is cut, as the specification demands. With structured replies each part is a chunk of its own, in any order.
 *
 * @module
 */
import { HEADER_BYTES_MAX, type Memory, type StreamConsumer, Verdict } from "../consumer.ts";
import { PENDING } from "../request.ts";
import { type Agreement, ALLOCATION_CONTEXT_ID } from "./handshake.ts";
import type { NbdExport, NbdHost } from "./host.ts";
import { Reason, reasonError, reasonOfStatus } from "./reason.ts";
import {
  convertExtents,
  readU64,
  writeChunk,
  writeDataChunk,
  writeErrorChunk,
  writeSimpleReply,
  writeStatusChunk,
} from "./reply.ts";
import { Outbox } from "./outbox.ts";
import { NONE, Requests } from "./requests.ts";
import { operationOf, requestFlagsOf, RequestRules } from "./rules.ts";
import { CHUNK_BYTES, CHUNK_DONE, ChunkType, Command, CommandFlag, Magic, REQUEST_BYTES } from "./wire.ts";

/**
 * A stream gives a payload only after a header, so each further part of a long WRITE takes its first bytes as a
 * header. As many as may be: the stream reads about that far ahead anyway.
 */
const LEAD_BYTES = HEADER_BYTES_MAX;

/** Requests and replies of one connection. */
export class Transmission implements StreamConsumer {
  headerBytes = REQUEST_BYTES;
  payloadAt = -1;
  payloadBytes = 0;
  /** New requests are answered with ESHUTDOWN. */
  shuttingDown = false;

  readonly #memory: Memory;
  readonly #host: NbdHost;
  readonly #slotBytes: number;
  readonly #exported: NbdExport;
  readonly #structured: boolean;
  readonly #rules: RequestRules;
  readonly #requests: Requests;
  readonly #outbox: Outbox;
  #abandoned = false;
  #executing = 0;

  /** The READ or WRITE whose parts are being started, where the next part begins, and how much is left of it. */
  #head = NONE;
  #headOffset = 0;
  #headLeft = 0;
  /** The slot that a WRITE's part, or the payload of a refused WRITE, belongs to while it is received. */
  #receiving = NONE;
  #receivingBytes = 0;

  /**
   * @param slots how many slots the connection has
   * @param slotBytes the payload area of each; a multiple of 65536
   */
  constructor(memory: Memory, host: NbdHost, slots: number, slotBytes: number, agreement: Agreement) {
    this.#memory = memory;
    this.#host = host;
    this.#slotBytes = slotBytes;
    this.#exported = agreement.exported;
    this.#structured = agreement.structured;
    this.#rules = new RequestRules(agreement, slotBytes);
    this.#requests = new Requests(slots);
    this.#outbox = new Outbox(host, slots);
  }

  onHeader(at: number): Verdict {
    if (this.#abandoned) return Verdict.CLOSE;
    if (this.#head === NONE) return this.#onRequest(at);
    return this.#requests.command[this.#head] === Command.READ ? this.#startReads() : this.#receiveMore(at);
  }

  onPayload(): Verdict {
    if (this.#abandoned) return Verdict.CLOSE;
    const slot = this.#receiving;
    this.#receiving = NONE;
    if (this.#head === NONE) this.#answer(slot);
    else this.#startWrite(slot, this.#receivingBytes);
    return Verdict.NEXT;
  }

  /** How many parts the host executes. */
  get executing(): number {
    return this.#executing;
  }

  /** A part that was pending has ended. */
  complete(slot: number, status: number): void {
    this.#executing--;
    this.#end(slot, status);
  }

  /** A part has ended. */
  #end(slot: number, status: number): void {
    const requests = this.#requests;
    const request = requests.partRequest[slot];
    requests.partsLeft[request]--;
    if (this.#abandoned) {
      this.#drop(slot);
      return;
    }
    if (requests.command[request] !== Command.READ) {
      this.#endOther(slot, request, status);
    } else if (this.#structured) {
      this.#endChunk(slot, request, status);
    } else if (requests.partLength[slot] === requests.length[request]) {
      this.#endRead(slot, request, status);
    } else {
      requests.partStatus[slot] = status;
      requests.partDone[slot] = 1;
      this.#answerInOrder(request);
    }
  }

  /**
   * The connection is gone: nothing is answered any more. Slots that are not executing are given back now, the others
   * by {@link complete}.
   */
  abandon(): void {
    if (this.#abandoned) return;
    this.#abandoned = true;
    const requests = this.#requests;
    const refused = this.#head === NONE && this.#receiving !== NONE;
    if (refused) requests.partsLeft[requests.partRequest[this.#receiving]]--;
    if (this.#receiving !== NONE) this.#drop(this.#receiving);
    this.#receiving = NONE;
    this.#head = NONE;
    this.#headLeft = 0;
    this.#outbox.abandon();
    for (let slot = 0; slot < requests.partRequest.length; slot++) {
      if (requests.partRequest[slot] !== NONE && requests.partDone[slot] === 1) this.#drop(slot);
    }
  }

  #drop(slot: number): void {
    this.#requests.partRequest[slot] = NONE;
    this.#requests.partDone[slot] = 0;
    this.#host.releaseSlot(slot);
  }

  // ---- Requests ----

  #onRequest(at: number): Verdict {
    const view = this.#memory.view;
    if (view.getUint32(at) !== Magic.REQUEST) return Verdict.CLOSE;
    const command = view.getUint16(at + 6);
    const requests = this.#requests;
    // All that came before is answered first; what is queued is sent before the stream closes.
    if (command === Command.DISC) return requests.live === 0 ? Verdict.CLOSE : Verdict.WAIT;
    const slot = this.#host.takeSlot();
    if (slot < 0) return Verdict.WAIT;

    const request = requests.add();
    requests.flags[request] = view.getUint16(at + 4);
    requests.command[request] = command;
    requests.cookieHigh[request] = view.getUint32(at + 8);
    requests.cookieLow[request] = view.getUint32(at + 12);
    const offset = readU64(view, at + 16);
    const length = view.getUint32(at + 24);
    requests.offset[request] = offset;
    requests.length[request] = length;
    const reason = this.shuttingDown ? Reason.SHUTTING_DOWN : this.#rules.check(requests, request);
    requests.reason[request] = reason;
    if (reason !== Reason.NONE || (length === 0 && command !== Command.FLUSH)) {
      return this.#answerAtOnce(slot, request, command === Command.WRITE ? length : 0);
    }
    if (command === Command.READ || command === Command.WRITE) {
      this.#head = request;
      this.#headOffset = offset;
      this.#headLeft = length;
      if (command === Command.WRITE) return this.#receiveFirst(slot);
      this.#startRead(slot);
      return this.#startReads();
    }
    requests.addPart(request, slot, offset, length);
    requests.issued[request] = 1;
    this.#execute(slot, request);
    return Verdict.NEXT;
  }

  /** Answers without the disk; after the payload that the client sends all the same. */
  #answerAtOnce(slot: number, request: number, payloadBytes: number): Verdict {
    const requests = this.#requests;
    requests.addPart(request, slot, requests.offset[request], 0);
    requests.issued[request] = 1;
    if (payloadBytes > 0) {
      this.#receiving = slot;
      this.payloadAt = -1;
      this.payloadBytes = payloadBytes;
      return Verdict.PAYLOAD;
    }
    this.#answer(slot);
    return Verdict.NEXT;
  }

  #answer(slot: number): void {
    const request = this.#requests.partRequest[slot];
    this.#requests.partsLeft[request]--;
    this.#reply(slot, request);
  }

  #execute(slot: number, request: number): void {
    const requests = this.#requests;
    const command = requests.command[request];
    const flags = requestFlagsOf(command, requests.flags[request]);
    const offset = requests.partOffset[slot];
    const length = requests.partLength[slot];
    const status = this.#host.execute(slot, operationOf(command), offset, length, flags);
    if (status === PENDING) this.#executing++;
    else this.#end(slot, status);
  }

  // ---- READ ----

  /** Starts parts of the READ at the head while there are slots. */
  #startReads(): Verdict {
    while (this.#headLeft > 0) {
      const slot = this.#host.takeSlot();
      if (slot < 0) return Verdict.WAIT;
      this.#startRead(slot);
    }
    this.#head = NONE;
    return Verdict.NEXT;
  }

  #startRead(slot: number): void {
    const requests = this.#requests;
    const request = this.#head;
    const length = Math.min(this.#headLeft, this.#slotBytes);
    requests.addPart(request, slot, this.#headOffset, length);
    if (!this.#structured) requests.append(request, slot);
    this.#headOffset += length;
    this.#headLeft -= length;
    if (this.#headLeft === 0) requests.issued[request] = 1;
    this.#execute(slot, request);
  }

  /** A part of a READ with structured replies: a chunk of its own. */
  #endChunk(slot: number, request: number, status: number): void {
    const requests = this.#requests;
    const cookieHigh = requests.cookieHigh[request];
    const cookieLow = requests.cookieLow[request];
    const last = requests.issued[request] === 1 && requests.partsLeft[request] === 0;
    const flags = last ? CHUNK_DONE : 0;
    const payloadAt = this.#host.payloadAt(slot);
    const offset = requests.partOffset[slot];
    const length = requests.partLength[slot];
    const whole = length === requests.length[request];
    let at: number;
    let end = payloadAt;
    if (status === 0) {
      at = writeDataChunk(this.#memory, payloadAt, flags, cookieHigh, cookieLow, offset, length);
      end += length;
    } else {
      const reason = reasonOfStatus(status, false);
      at = writeErrorChunk(this.#memory, payloadAt, flags, cookieHigh, cookieLow, reason, whole ? -1 : offset);
    }
    requests.partRequest[slot] = NONE;
    if (last) requests.remove(request);
    this.#outbox.send(at, end - at, slot);
  }

  /** A READ of one part with a simple reply. */
  #endRead(slot: number, request: number, status: number): void {
    const requests = this.#requests;
    if (status !== 0) {
      requests.reason[request] = reasonOfStatus(status, false);
      this.#reply(slot, request);
      return;
    }
    const end = this.#host.payloadAt(slot);
    const at = writeSimpleReply(this.#memory, end, 0, requests.cookieHigh[request], requests.cookieLow[request]);
    requests.partRequest[slot] = NONE;
    requests.remove(request);
    this.#outbox.send(at, end + requests.partLength[slot] - at, slot);
  }

  /** Sends what can be sent of a READ of several parts with a simple reply: its parts in order. */
  #answerInOrder(request: number): void {
    const requests = this.#requests;
    const outbox = this.#outbox;
    if (outbox.speaker !== NONE && outbox.speaker !== request) return;
    while (requests.first[request] !== NONE && requests.partDone[requests.first[request]] === 1) {
      const slot = requests.shift(request);
      const status = requests.partStatus[slot];
      requests.partDone[slot] = 0;
      requests.partRequest[slot] = NONE;
      if (requests.reason[request] !== Reason.NONE) {
        this.#host.releaseSlot(slot);
      } else if (status === 0) {
        this.#sendPiece(slot, request);
      } else if (outbox.speaker === request) {
        this.#host.releaseSlot(slot);
        this.abandon();
        this.#host.disconnect();
        return;
      } else {
        this.#failRead(slot, request, reasonOfStatus(status, false));
      }
    }
    if (requests.first[request] !== NONE || requests.issued[request] === 0) return;
    requests.remove(request);
    if (outbox.speaker === request) this.#endSpeech();
  }

  #sendPiece(slot: number, request: number): void {
    const requests = this.#requests;
    const payloadAt = this.#host.payloadAt(slot);
    let at = payloadAt;
    if (this.#outbox.speaker === NONE) {
      at = writeSimpleReply(this.#memory, payloadAt, 0, requests.cookieHigh[request], requests.cookieLow[request]);
    }
    this.#outbox.sendPiece(request, at, payloadAt + requests.partLength[slot] - at, slot);
  }

  /** A reply in pieces is whole: what waited for it goes on, single replies first and then the next long READ. */
  #endSpeech(): void {
    const requests = this.#requests;
    this.#outbox.endSpeech();
    for (let slot = 0; slot < requests.partRequest.length && this.#outbox.speaker === NONE; slot++) {
      const request = requests.partRequest[slot];
      if (request !== NONE && requests.first[request] === slot) this.#answerInOrder(request);
    }
  }

  /** The first part failed: the error is all of the reply, and no more parts are started. */
  #failRead(slot: number, request: number, reason: number): void {
    const requests = this.#requests;
    requests.reason[request] = reason;
    requests.issued[request] = 1;
    if (this.#head === request) this.#headLeft = 0;
    this.#sendReply(slot, request, reason);
  }

  // ---- WRITE ----

  #receiveFirst(slot: number): Verdict {
    const bytes = this.#receivePart(slot);
    this.payloadAt = this.#host.payloadAt(slot);
    this.payloadBytes = bytes;
    return Verdict.PAYLOAD;
  }

  /** The first bytes of a further part lie at `at`, as many as `headerBytes`. */
  #receiveMore(at: number): Verdict {
    const slot = this.#host.takeSlot();
    if (slot < 0) return Verdict.WAIT;
    const bytes = this.#receivePart(slot);
    const lead = this.headerBytes;
    const payloadAt = this.#host.payloadAt(slot);
    this.#memory.bytes.copyWithin(payloadAt, at, at + lead);
    if (bytes === lead) {
      this.#receiving = NONE;
      this.#startWrite(slot, bytes);
      return Verdict.NEXT;
    }
    this.payloadAt = payloadAt + lead;
    this.payloadBytes = bytes - lead;
    return Verdict.PAYLOAD;
  }

  #receivePart(slot: number): number {
    this.#receiving = slot;
    this.#receivingBytes = Math.min(this.#headLeft, this.#slotBytes);
    return this.#receivingBytes;
  }

  /** A part of the WRITE at the head has arrived in the slot. */
  #startWrite(slot: number, bytes: number): void {
    const requests = this.#requests;
    const request = this.#head;
    requests.addPart(request, slot, this.#headOffset, bytes);
    this.#headOffset += bytes;
    this.#headLeft -= bytes;
    this.headerBytes = Math.min(this.#headLeft, LEAD_BYTES);
    if (this.#headLeft === 0) {
      requests.issued[request] = 1;
      this.#head = NONE;
      this.headerBytes = REQUEST_BYTES;
    }
    this.#execute(slot, request);
  }

  // ---- The end of everything but READ ----

  #endOther(slot: number, request: number, status: number): void {
    const requests = this.#requests;
    if (requests.reason[request] === Reason.NONE) {
      const fastZero = (requests.flags[request] & CommandFlag.FAST_ZERO) !== 0;
      requests.reason[request] = reasonOfStatus(status, fastZero);
    }
    if (requests.issued[request] === 0 || requests.partsLeft[request] > 0) {
      requests.partRequest[slot] = NONE;
      this.#host.releaseSlot(slot);
    } else if (requests.command[request] === Command.BLOCK_STATUS && requests.reason[request] === Reason.NONE) {
      this.#replyStatus(slot, request);
    } else {
      this.#reply(slot, request);
    }
  }

  #replyStatus(slot: number, request: number): void {
    const requests = this.#requests;
    const payloadAt = this.#host.payloadAt(slot);
    const available = this.#exported.size - requests.offset[request];
    const one = (requests.flags[request] & CommandFlag.REQ_ONE) !== 0;
    const extentBytes = this.#host.extentBytes(slot);
    const length = requests.length[request];
    const bytes = convertExtents(this.#memory, payloadAt, extentBytes, length, available, one);
    if (bytes === 0) {
      requests.reason[request] = Reason.IO_ERROR;
      this.#reply(slot, request);
      return;
    }
    const cookieHigh = requests.cookieHigh[request];
    const cookieLow = requests.cookieLow[request];
    const id = ALLOCATION_CONTEXT_ID;
    const at = writeStatusChunk(this.#memory, payloadAt, CHUNK_DONE, cookieHigh, cookieLow, id, bytes);
    requests.partRequest[slot] = NONE;
    requests.remove(request);
    this.#outbox.send(at, payloadAt + bytes - at, slot);
  }

  /** The one reply without data that ends the request. */
  #reply(slot: number, request: number): void {
    const requests = this.#requests;
    requests.partRequest[slot] = NONE;
    // What the reply needs of the request stays in place until another one is added.
    requests.remove(request);
    this.#sendReply(slot, request, requests.reason[request]);
  }

  #sendReply(slot: number, request: number, reason: number): void {
    const requests = this.#requests;
    const cookieHigh = requests.cookieHigh[request];
    const cookieLow = requests.cookieLow[request];
    const end = this.#host.payloadAt(slot);
    let at: number;
    if (!this.#structured || (reason === Reason.NONE && requests.command[request] !== Command.READ)) {
      at = writeSimpleReply(this.#memory, end, reasonError(reason), cookieHigh, cookieLow);
    } else if (reason === Reason.NONE) {
      at = end - CHUNK_BYTES;
      writeChunk(this.#memory, at, CHUNK_DONE, ChunkType.NONE, cookieHigh, cookieLow, 0);
    } else {
      at = writeErrorChunk(this.#memory, end, CHUNK_DONE, cookieHigh, cookieLow, reason, -1);
    }
    this.#outbox.send(at, end - at, slot);
  }
}
