/**
 * A lane in the data-path Worker: joins the protocol's machine, its present connection, and the disk.
 *
 * @module
 */
import type { BlockClient, BlockDevice } from "../engine/block.ts";
import { type Engine, Task } from "../engine/engine.ts";
import type { Stream, StreamOwner } from "../engine/stream.ts";
import { protocolErrorText } from "../protocol/error.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "../protocol/codec.ts";
import { ExporterLane, type ExporterLaneHost, LANE_CONTROL_BYTES } from "../protocol/exporter_lane.ts";

/** What a lane tells the Worker. */
export interface LaneOwner {
  /** The lane has no connection any more, and nothing of the old one is under way in the kernel. */
  onLaneLost(lane: Lane, generation: number): void;
  /** Nothing executes any more; there may be a connection. */
  onLaneFinished(lane: Lane): void;
  /** Nothing executes any more, and there is no connection. */
  onLaneIdle(lane: Lane): void;
  /** The client ends the session. */
  onClose(lane: Lane): void;
  log(text: string): void;
}

/** One lane of one session. Lives as long as the session; its connections come and go. */
export class Lane implements BlockClient, StreamOwner, ExporterLaneHost {
  readonly session: string;
  /** Its number in the session. */
  readonly number: number;
  readonly machine: ExporterLane;
  readonly depth: number;
  readonly maxPayload: number;
  readonly #engine: Engine;
  readonly #device: BlockDevice;
  readonly #owner: LaneOwner;
  /** The Worker's slot of each of the lane's, and at last one for the machine's own messages. */
  readonly #slots: Uint32Array;
  /** The lane's slot of each of the Worker's. */
  readonly #laneSlotOf: Uint16Array;
  readonly #controlAt: number;
  readonly #task = new Task(() => this.#goOn());
  #stream: Stream | null = null;
  /** The connection ends when all that waits is sent. */
  #isFinishing = false;
  #generation = 0;
  #ticking = false;

  /** @param slots `depth` + 1 slots of the Worker, which the owner has reserved */
  constructor(
    engine: Engine,
    device: BlockDevice,
    owner: LaneOwner,
    options: {
      session: string;
      lane: number;
      depth: number;
      maxPayload: number;
      readOnly: boolean;
      slots: Uint32Array;
    },
  ) {
    this.#engine = engine;
    this.#device = device;
    this.#owner = owner;
    this.#slots = options.slots;
    this.session = options.session;
    this.number = options.lane;
    this.depth = options.depth;
    this.maxPayload = options.maxPayload;
    this.#laneSlotOf = new Uint16Array(engine.slots.count);
    const payloadAt = new Float64Array(options.depth);
    for (let i = 0; i < options.depth; i++) {
      this.#laneSlotOf[options.slots[i]] = i;
      payloadAt[i] = engine.slots.payloadAt(options.slots[i]);
    }
    this.#controlAt = engine.slots.payloadAt(options.slots[options.depth]);
    this.machine = new ExporterLane(engine.arena, {
      lane: options.lane,
      depth: options.depth,
      maxPayload: options.maxPayload,
      payloadAt,
      controlAt: this.#controlAt + CODEC_SCRATCH_BYTES,
      size: device.geometry.size,
      logicalBlock: device.geometry.logicalBlock,
      readOnly: options.readOnly,
    }, this);
  }

  /** Slots to be given back when the lane is over. */
  get slots(): Uint32Array {
    return this.#slots;
  }

  /** Whether anything of this lane may still reach the disk or the network. */
  get isIdle(): boolean {
    return this.#stream === null && this.machine.executing === 0;
  }

  /** Whether it is one of that disk. */
  isOf(device: BlockDevice): boolean {
    return this.#device === device;
  }

  /** Whether it has a connection. */
  get isConnected(): boolean {
    return this.#stream !== null;
  }

  /**
   * Goes on with a connection. The lane is idle.
   *
   * @param handoff its keys are wiped
   * @param answerType OPEN or JOIN, to which the grant is the answer
   * @returns false when the Worker has no room for one more connection: the descriptor is still the caller's
   */
  connect(fd: number, handoff: Handoff, answerType: number, generation: number, grant: Uint8Array): boolean {
    const engine = this.#engine;
    const stream = engine.streams.open(fd, this);
    if (stream === null) {
      wipe(handoff);
      return false;
    }
    this.#stream = stream;
    this.#isFinishing = false;
    this.#generation = generation;
    const codec = new FrameCodec(engine.arena, engine.cryptography, this.#controlAt, handoff);
    wipe(handoff);
    this.machine.connect(codec, answerType, generation, grant, engine.now);
    stream.start(this.machine);
    if (!this.#ticking) this.expire();
    return true;
  }

  /** Ends the connection, if there is one; `onLaneLost` follows. */
  disconnect(): void {
    this.#stream?.close();
  }

  /** Ends the connection when all that is queued is sent. */
  finish(): void {
    if (this.#stream === null) return;
    this.machine.finish();
    if (this.machine.isSending) this.#isFinishing = true;
    else this.#stream.finish();
  }

  // The machine's host.

  get turn(): number {
    return this.#engine.turnNumber;
  }

  again(): void {
    this.#engine.again(this.#task);
  }

  execute(laneSlot: number, operation: number, range: Float64Array, flags: number): number {
    const slot = this.#slots[laneSlot];
    const { slots } = this.#engine;
    slots.offset[slot] = range[0];
    slots.length[slot] = range[1];
    return this.#device.submit(slot, operation, flags, this);
  }

  extentBytes(laneSlot: number): number {
    return this.#device.extentBytes(this.#slots[laneSlot]);
  }

  transmit(at: number, bytes: number): void {
    this.#stream!.transmit(at, bytes);
  }

  closeSession(): void {
    this.#owner.onClose(this);
  }

  // The disk's client.

  onComplete(slot: number, status: number): void {
    this.machine.complete(this.#laneSlotOf[slot], status);
    if (this.machine.executing === 0) this.#owner.onLaneFinished(this);
    if (this.isIdle) this.#owner.onLaneIdle(this);
  }

  // The stream's owner.

  onHeard(): void {
    this.machine.heard(this.#engine.now);
  }

  onSent(): void {}

  onDrained(): void {}

  onClosed(_stream: Stream, errno: number): void {
    const error = this.machine.error;
    if (error !== 0) this.#owner.log(`A connection was dropped: ${protocolErrorText(error)}`);
    else if (errno !== 0) this.#owner.log(`A connection was lost: errno ${-errno}`);
    this.#stream = null;
    this.machine.disconnect();
    this.#owner.onLaneLost(this, this.#generation);
    if (this.isIdle) this.#owner.onLaneIdle(this);
  }

  /** What the machine has not done in the turn before. */
  #goOn(): void {
    if (this.#stream === null) return;
    this.machine.run();
    if (this.#isFinishing && !this.machine.isSending) this.#stream.finish();
    else this.#stream.resume();
  }

  /** Drives the machine's pings. */
  expire(): void {
    this.#ticking = false;
    if (this.#stream === null) return;
    const waitMs = this.machine.tick(this.#engine.now);
    if (this.machine.error !== 0) {
      this.#stream.close();
      return;
    }
    if (waitMs === Infinity) return;
    this.#ticking = true;
    this.#engine.timers.schedule(this, 0, this.#engine.now + waitMs);
  }
}

function wipe({ keys }: Handoff): void {
  keys?.send.fill(0);
  keys?.receive.fill(0);
}

/** Bytes of a lane's extra slot that are used. */
export const LANE_EXTRA_BYTES = CODEC_SCRATCH_BYTES + LANE_CONTROL_BYTES;
