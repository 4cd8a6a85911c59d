/**
 * What the tests of back-ends stand on: a real loop, slots in memory that the kernel can reach, and places for disks.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type BlockClient, type BlockDevice, Operation, PENDING } from "../../engine/block.ts";
import { type Arena, SLOT_STRIDE_BYTES, Slots } from "../../engine/slots.ts";
import { Mapping, Protection } from "../../ffi/constants.ts";
import { check } from "../../ffi/errno.ts";
import { mmap, munmap, viewOf } from "../../ffi/libc.ts";
import type { Loop } from "../../ffi/loop.ts";
import { type LoopKind, makeLoop } from "../../ffi/mod.ts";
import { closeBackend, makeBackend, makeStickyWord, openBackend, type OpenedDisk } from "./open.ts";

const SLOTS = 6;

/** An extent of a BLOCK_STATUS answer. */
export interface Extent {
  length: number;
  flags: number;
}

/** One Worker's worth of things, around one disk. */
export class Bench implements BlockClient, Disposable {
  readonly loop: Loop;
  readonly slots: Slots;
  readonly disk: OpenedDisk;
  readonly device: BlockDevice;
  readonly sticky: Int32Array;
  readonly statuses = new Map<number, number>();
  readonly #address: number;
  readonly #ownsDisk: boolean;

  /** @param disk what to open, or an opened disk that stays the caller's */
  constructor(
    loop: LoopKind,
    disk: OpenedDisk | string,
    options: { readOnly?: boolean; direct?: boolean; sticky?: Int32Array } = {},
  ) {
    this.#ownsDisk = typeof disk === "string";
    const { readOnly = false, direct = false } = options;
    this.disk = typeof disk === "string" ? openBackend({ path: disk, readOnly, direct }) : disk;
    this.loop = makeLoop(loop);
    const bytes = SLOTS * SLOT_STRIDE_BYTES;
    const mapping = Mapping.PRIVATE | Mapping.ANONYMOUS;
    this.#address = check(mmap(bytes, Protection.READ | Protection.WRITE, mapping, -1, 0), "map slots");
    const buffer = viewOf(this.#address, bytes);
    const arena: Arena = {
      bytes: new Uint8Array(buffer),
      view: new DataView(buffer),
      address: this.#address,
      freeFrom: 0,
    };
    this.slots = new Slots(arena);
    this.loop.base = arena.address;
    this.sticky = options.sticky ?? makeStickyWord();
    this.device = makeBackend(this.disk, this.loop, this.slots, this.sticky);
  }

  onComplete(slot: number, status: number): void {
    assert.equal(this.statuses.has(slot), false, "completed twice");
    this.statuses.set(slot, status);
  }

  /** Starts a request; its status comes to {@link finish}. */
  start(slot: number, operation: number, offset = 0, length = 0, flags = 0): void {
    this.statuses.delete(slot);
    this.slots.setRange(slot, offset, length);
    const status = this.device.submit(slot, operation, flags, this);
    assert.equal(this.statuses.has(slot), false, "completed from within submit");
    if (status !== PENDING) this.statuses.set(slot, status);
  }

  /** Runs the loop until the slot's request has ended. */
  finish(slot: number): number {
    while (!this.statuses.has(slot)) this.loop.turn(1000);
    return this.statuses.get(slot)!;
  }

  run(operation: number, offset = 0, length = 0, flags = 0, slot = 0): number {
    this.start(slot, operation, offset, length, flags);
    return this.finish(slot);
  }

  /** Writes bytes that depend on the position and the salt. */
  write(offset: number, length: number, salt: number, flags = 0, slot = 0): number {
    const at = this.slots.payloadAt(slot);
    this.slots.arena.bytes.set(pattern(offset, length, salt), at);
    return this.run(Operation.WRITE, offset, length, flags, slot);
  }

  /** Reads, in a slot that held other bytes before. */
  read(offset: number, length: number, slot = 1): Uint8Array {
    const at = this.slots.payloadAt(slot);
    this.slots.arena.bytes.fill(0xee, at, at + length);
    assert.equal(this.run(Operation.READ, offset, length, 0, slot), 0);
    return this.slots.arena.bytes.slice(at, at + length);
  }

  /** All extents of a range, over as many requests as it takes. */
  extents(offset: number, length: number): Extent[] {
    const extents: Extent[] = [];
    const end = offset + length;
    while (offset < end) {
      assert.equal(this.run(Operation.BLOCK_STATUS, offset, end - offset), 0);
      const bytes = this.device.extentBytes(0);
      assert.ok(bytes >= 16 && bytes % 16 === 0);
      for (let at = this.slots.payloadAt(0), i = 0; i < bytes; i += 16) {
        const extent = {
          length: Number(this.slots.arena.view.getBigUint64(at + i, true)),
          flags: this.slots.arena.view.getUint32(at + i + 8, true),
        };
        assert.ok(extent.length > 0);
        const last = extents.at(-1);
        if (last?.flags === extent.flags) last.length += extent.length;
        else extents.push(extent);
        offset += extent.length;
      }
    }
    assert.equal(offset, end);
    return extents;
  }

  [Symbol.dispose](): void {
    this.device.close();
    this.loop.close();
    munmap(this.#address, SLOTS * SLOT_STRIDE_BYTES);
    if (this.#ownsDisk) closeBackend(this.disk);
  }
}

/** Bytes that depend on the position on the disk and the salt, and are never 0. */
export function pattern(offset: number, length: number, salt: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = 1 + (offset / 512 + i * 7 + (i >> 9) + salt * 31) % 255;
  return bytes;
}

/** Runs a program to its end, and answers what it printed. */
export function run(program: string, ...args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(program, { args }).outputSync();
  if (!success) throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr).trim()}`);
  return new TextDecoder().decode(stdout).trim();
}

/** Why this machine can mount nothing and make no loop devices, or null when it can. */
export const whyNoMounts: string | null = (() => {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.writeFileSync(`${folder}/image`, new Uint8Array(4096));
    run("losetup", "-d", run("losetup", "-f", "--show", `${folder}/image`));
    run("mount", "-t", "tmpfs", "none", folder);
    run("umount", folder);
    return null;
  } catch (error) {
    return (error as Error).message;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
})();

/** A temporary folder and what is mounted or attached in it, all undone at the end. */
export class Scratch implements Disposable {
  readonly folder: string;
  readonly #undo: (() => void)[] = [];

  /** @param parent where; by default where temporary files go */
  constructor(parent?: string) {
    this.folder = Deno.makeTempDirSync({ dir: parent });
    this.#undo.push(() => Deno.removeSync(this.folder, { recursive: true }));
  }

  /** A sparse file of that size. */
  file(name: string, bytes: number, folder = this.folder): string {
    const path = `${folder}/${name}`;
    Deno.writeFileSync(path, new Uint8Array(0));
    Deno.truncateSync(path, bytes);
    return path;
  }

  /** A tmpfs of that size. */
  tmpfs(bytes: number): string {
    return this.#mount("-t", "tmpfs", "-o", `size=${bytes}`, "none");
  }

  /** A loop device over a file. */
  loopDevice(path: string, ...options: string[]): string {
    const device = run("losetup", "-f", "--show", ...options, path);
    this.#undo.push(() => run("losetup", "-d", device));
    return device;
  }

  /** A new file system of that type on an image of that size. */
  filesystem(type: "ext4" | "xfs", bytes: number): string {
    const device = this.loopDevice(this.file(`${type}-image`, bytes));
    run(`mkfs.${type}`, "-q", device);
    return this.#mount(device);
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo.reverse()) undo();
  }

  #mount(...args: string[]): string {
    const folder = Deno.makeTempDirSync({ dir: this.folder });
    run("mount", ...args, folder);
    this.#undo.push(() => run("umount", folder));
    return folder;
  }
}
