import assert from "node:assert/strict";
import fc from "fast-check";
import { CLIENT_FLAGS, meta, open, option, request } from "../../tests/nbd/client.ts";
import { concat, SLOT_BYTES, TestHost } from "../../tests/nbd/host.ts";
import { Option } from "./wire.ts";

/** How many cases; a failing one is printed with the seed and path that replay it. */
const RUNS = 300;

const somePiece = fc.constantFrom(1, 7, 28, 0, 1 << 30);
const someSeed = fc.option(fc.integer({ min: 0, max: 1 << 30 }), { nil: undefined });
const someBytes = fc.uint8Array({ maxLength: 400 });

/** A server that is fed some bytes: whatever they are, nothing is thrown, nothing hangs and every slot comes back. */
function survive(bytes: Uint8Array, piece: number, seed: number | undefined, slots: number): void {
  const fault = seed === undefined ? undefined : (asked: { offset: number }) => asked.offset % 7 === 3 ? -5 : 0;
  const host = new TestHost({ seed, slots, fault, openPending: seed !== undefined && seed % 2 === 0 });
  host.feed(bytes, piece);
  assert(!host.isStuck, "the server takes what it is given");
  host.hangUp();
}

const someName = fc.constantFrom("disk", "", "held", "nothing", "é\0");
const someOption = fc.oneof(
  fc.tuple(fc.integer({ min: 0, max: 12 }), someBytes).map(([type, data]) => option(type, data)),
  fc.tuple(fc.constantFrom(6, 7), someName, fc.array(fc.nat(5), { maxLength: 6 })).map((args) => open(...args)),
  fc.tuple(
    fc.constantFrom(9, 10),
    someName,
    fc.array(fc.constantFrom("base:", "base:allocation", "x"), { maxLength: 4 }),
  )
    .map(([type, name, queries]) => meta(type, name, ...queries)),
  someBytes,
);

const someOffset = fc.oneof(
  fc.nat(1 << 20),
  fc.constantFrom(0, 1 << 20, (1 << 20) - 1, SLOT_BYTES, SLOT_BYTES - 1),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);
const someLength = fc.oneof(
  fc.nat(5000),
  fc.constantFrom(0, 1, SLOT_BYTES, SLOT_BYTES + 1, 2 * SLOT_BYTES + 511, 5 * SLOT_BYTES, 1 << 20),
  fc.nat(0xffffffff),
);
const someRequest = fc.tuple(
  fc.oneof(fc.constantFrom(0, 1, 3, 4, 5, 6, 7), fc.nat(9)),
  fc.nat(100),
  someOffset,
  someLength,
  fc.oneof(fc.constant(0), fc.nat(31), fc.nat(0xffff)),
).map(([command, cookie, offset, length, flags]) => {
  // A write brings its payload; a huge one ends with the stream.
  const payload = new Uint8Array(command === 1 ? Math.min(length, 6 * SLOT_BYTES) : 0).fill(cookie);
  return request(command, cookie, offset, length, flags, payload);
});

Deno.test("any bytes from the start are survived", () => {
  fc.assert(fc.property(someBytes, somePiece, (bytes, piece) => survive(bytes, piece, undefined, 2)), {
    numRuns: RUNS,
  });
});

Deno.test("any options are survived", () => {
  fc.assert(
    fc.property(fc.array(someOption, { maxLength: 8 }), somePiece, someSeed, (options, piece, seed) => {
      survive(concat(CLIENT_FLAGS, ...options), piece, seed, 2);
    }),
    { numRuns: RUNS },
  );
});

Deno.test("any requests are survived, with simple and structured replies", () => {
  const slots = fc.integer({ min: 1, max: 5 });
  fc.assert(
    fc.property(
      fc.array(fc.oneof({ weight: 20, arbitrary: someRequest }, { weight: 1, arbitrary: someBytes }), {
        maxLength: 12,
      }),
      fc.boolean(),
      fc.constantFrom(0, 997, 1 << 30),
      someSeed,
      slots,
      (requests, structured, piece, seed, slots) => {
        const options = structured
          ? [option(Option.STRUCTURED_REPLY), meta(Option.SET_META_CONTEXT, "disk", "base:allocation")]
          : [];
        survive(concat(CLIENT_FLAGS, ...options, open(Option.GO, "disk"), ...requests), piece, seed, slots);
      },
    ),
    { numRuns: RUNS },
  );
});

Deno.test("any change of one byte in a good stream is survived", () => {
  const stream = concat(
    CLIENT_FLAGS,
    option(Option.STRUCTURED_REPLY),
    meta(Option.SET_META_CONTEXT, "disk", "base:allocation"),
    open(Option.GO, "disk", [3]),
    request(1, 1, 4096, 700, 1, new Uint8Array(700)),
    request(0, 2, 4096, 3 * SLOT_BYTES),
    request(7, 3, 0, 4096, 8),
    request(3, 4, 0, 0),
    request(2, 5, 0, 0),
  );
  for (let at = 0; at < stream.length; at++) {
    for (const change of [1, 0x80, 0xff]) {
      const bytes = stream.slice();
      bytes[at] ^= change;
      survive(bytes, bytes.length, at, 2);
    }
  }
  const untouched = new TestHost();
  untouched.feed(stream);
  assert(untouched.closed && !untouched.cut);
});
