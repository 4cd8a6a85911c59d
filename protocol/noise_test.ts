import assert from "node:assert/strict";
import { noisePrimitives as noise } from "../engine/noise_primitives.ts";
import { concat, hex, noiseNNpsk0, pattern, text, unhex } from "../tests/vectors/primitives.ts";
import { hkdf, NOISE_MESSAGE_BYTES, NoiseInitiator, NoiseResponder } from "./noise.ts";

const NOTHING = new Uint8Array(0);
const PROLOGUE = text("both hellos");
const PSK = pattern(32, 1);
const INITIATOR = pattern(32, 2);
const RESPONDER = pattern(32, 3);
/** An encoding of the neutral element: with it every shared secret is all zero. */
const SMALL_ORDER = new Uint8Array(32);

/** A fresh pair: an ephemeral key is wiped after its use. */
function pair(psk = PSK, prologue = PROLOGUE): { initiator: NoiseInitiator; responder: NoiseResponder } {
  return {
    initiator: new NoiseInitiator(noise, PROLOGUE, PSK, INITIATOR.slice()),
    responder: new NoiseResponder(noise, prologue, psk, RESPONDER.slice()),
  };
}

Deno.test("the handshakes are those of the golden vectors, at both sides", async () => {
  const file = new URL("../tests/vectors/noise.json", import.meta.url);
  const { vectors } = JSON.parse(await Deno.readTextFile(file)) as { vectors: Record<string, string>[] };
  assert.ok(vectors.length >= 4);
  for (const vector of vectors) {
    const bytes = (name: string) => unhex(vector[name]);
    const clientEphemeral = bytes("client_ephemeral");
    const exporterEphemeral = bytes("exporter_ephemeral");
    assert.deepEqual(noise.publicKey(clientEphemeral), bytes("client_ephemeral_public"), vector.name);
    assert.deepEqual(noise.publicKey(exporterEphemeral), bytes("exporter_ephemeral_public"), vector.name);
    const initiator = new NoiseInitiator(noise, bytes("prologue"), bytes("psk"), clientEphemeral);
    const responder = new NoiseResponder(noise, bytes("prologue"), bytes("psk"), exporterEphemeral);
    assert.deepEqual(initiator.writeMessage(), bytes("client_message"), vector.name);
    assert.deepEqual(responder.readMessage(bytes("client_message")), NOTHING, vector.name);
    assert.deepEqual(responder.writeMessage(), bytes("exporter_message"), vector.name);
    assert.deepEqual(initiator.readMessage(bytes("exporter_message")), NOTHING, vector.name);
    assert.deepEqual(initiator.hash, bytes("handshake_hash"), vector.name);
    assert.deepEqual(responder.hash, bytes("handshake_hash"), vector.name);
    const keys = { client: bytes("client_key"), exporter: bytes("exporter_key") };
    assert.deepEqual(initiator.split(), { send: keys.client, receive: keys.exporter }, vector.name);
    assert.deepEqual(responder.split(), { send: keys.exporter, receive: keys.client }, vector.name);
  }
});

Deno.test("the handshake is that of the published vectors of cacophony, the reference of the Noise specification", () => {
  // vectors/cacophony.txt of that project, "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s".
  const payloads = [
    "4c756477696720766f6e204d69736573",
    "4d757272617920526f746862617264",
    "462e20412e20486179656b",
    "4361726c204d656e676572",
    "4a65616e2d426170746973746520536179",
    "457567656e2042f6686d20766f6e2042617765726b",
  ].map(unhex);
  const ciphertexts = [
    "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944" +
    "fda936bec35a8adfdff198386f7d5475880897edaaf7495314c99095a2e4d66a",
    "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843" +
    "4cd2a371993ba41ea11448024fca32766b169183c9e691a7a433279da7e729",
    "bc44da303ae0beb08075fc4eb4e58235c67c2d1f53a4f2fff0bca7",
    "416d1af83e9fa6966ce4e871156b131aa9bd7e9a1d6f8794f4872a",
    "8a7d81b77bcc6c072f2b807da066efba6b5fab9edf71a7faceb2c8454b0cfef608",
    "1e2ee010f72894824a25a867664ff298f2548a145dc4e9d27b1cad83f32fa7c54d69dc3279",
  ].map(unhex);
  const prologue = unhex("4a6f686e2047616c74");
  const psk = unhex("54686973206973206d7920417573747269616e20706572737065637469766521");
  const initiator = new NoiseInitiator(
    noise,
    prologue,
    psk,
    unhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
  );
  const responder = new NoiseResponder(
    noise,
    prologue,
    psk,
    unhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
  );
  assert.deepEqual(initiator.writeMessage(payloads[0]), ciphertexts[0]);
  assert.deepEqual(responder.readMessage(ciphertexts[0]), payloads[0]);
  assert.deepEqual(responder.writeMessage(payloads[1]), ciphertexts[1]);
  assert.deepEqual(initiator.readMessage(ciphertexts[1]), payloads[1]);
  assert.equal(hex(initiator.hash), "b3e9c846d264120a4211e18307da91157a21e92e69b639c50f027f101db3e1a6");
  assert.deepEqual(responder.hash, initiator.hash);
  const [mine, theirs] = [initiator.split(), responder.split()];
  assert.deepEqual([mine.send, mine.receive], [theirs.receive, theirs.send]);
  // The messages after Split, the initiator's and the responder's in turn, prove both of its keys.
  for (let i = 2; i < 6; i++) {
    const key = i % 2 === 0 ? mine.send : mine.receive;
    assert.deepEqual(noise.seal(key, (i >> 1) - 1, NOTHING, payloads[i]), ciphertexts[i], `message ${i}`);
  }
});

Deno.test("with other ephemeral keys and payloads the handshake agrees with the independent script's", () => {
  for (let seed = 10; seed < 20; seed++) {
    const input = {
      prologue: pattern(seed * 7, seed),
      psk: pattern(32, seed + 100),
      initiator: pattern(32, seed + 200),
      responder: pattern(32, seed + 300),
      payloads: [pattern(seed, seed + 400), pattern(2 * seed, seed + 500)] as const,
    };
    const expected = noiseNNpsk0(input);
    const initiator = new NoiseInitiator(noise, input.prologue, input.psk, input.initiator.slice());
    const responder = new NoiseResponder(noise, input.prologue, input.psk, input.responder.slice());
    const first = initiator.writeMessage(input.payloads[0]);
    assert.equal(hex(first), hex(expected.first), `seed ${seed}`);
    assert.deepEqual(responder.readMessage(first), input.payloads[0], `seed ${seed}`);
    const second = responder.writeMessage(input.payloads[1])!;
    assert.equal(hex(second), hex(expected.second), `seed ${seed}`);
    assert.deepEqual(initiator.readMessage(second), input.payloads[1], `seed ${seed}`);
    assert.equal(hex(initiator.split().send), hex(expected.k1), `seed ${seed}`);
    assert.equal(hex(responder.split().send), hex(expected.k2), `seed ${seed}`);
  }
});

Deno.test("both messages have 48 bytes", () => {
  const { initiator, responder } = pair();
  const first = initiator.writeMessage();
  assert.notEqual(responder.readMessage(first), null);
  assert.deepEqual([first.length, responder.writeMessage()!.length], [48, 48]);
  assert.equal(NOISE_MESSAGE_BYTES, 48);
});

Deno.test("a bit of the first message that flips makes it fail", () => {
  const message = pair().initiator.writeMessage();
  for (let bit = 0; bit < message.length * 8; bit++) {
    const other = message.slice();
    other[bit >> 3] ^= 1 << (bit & 7);
    assert.equal(pair().responder.readMessage(other), null, `bit ${bit}`);
  }
});

Deno.test("a bit of the second message that flips makes it fail", () => {
  const { initiator, responder } = pair();
  responder.readMessage(initiator.writeMessage());
  const message = responder.writeMessage()!;
  for (let bit = 0; bit < message.length * 8; bit++) {
    const fresh = pair().initiator;
    fresh.writeMessage();
    const other = message.slice();
    // The highest bit of a public key does not count in X25519, but it does in the transcript.
    other[bit >> 3] ^= 1 << (bit & 7);
    assert.equal(fresh.readMessage(other), null, `bit ${bit}`);
  }
});

Deno.test("a message of another length fails", () => {
  const { initiator, responder } = pair();
  const first = initiator.writeMessage();
  for (const bytes of [0, 1, 31, 32, 47]) assert.equal(pair().responder.readMessage(first.slice(0, bytes)), null);
  assert.equal(pair().responder.readMessage(concat(first, Uint8Array.of(0))), null);
  assert.equal(pair().responder.readMessage(new Uint8Array(65_536)), null);
  responder.readMessage(first);
  const second = responder.writeMessage()!;
  for (const other of [NOTHING, second.slice(0, 32), second.slice(0, 47), concat(second, Uint8Array.of(0))]) {
    const fresh = pair().initiator;
    fresh.writeMessage();
    assert.equal(fresh.readMessage(other), null, `${other.length} bytes`);
  }
});

Deno.test("another pre-shared key fails at the first message", () => {
  for (let bit = 0; bit < 256; bit++) {
    const psk = PSK.slice();
    psk[bit >> 3] ^= 1 << (bit & 7);
    const { initiator, responder } = pair(psk);
    assert.equal(responder.readMessage(initiator.writeMessage()), null, `bit ${bit}`);
  }
});

Deno.test("another prologue fails at the first message", () => {
  for (let bit = 0; bit < PROLOGUE.length * 8; bit++) {
    const prologue = PROLOGUE.slice();
    prologue[bit >> 3] ^= 1 << (bit & 7);
    const { initiator, responder } = pair(PSK, prologue);
    assert.equal(responder.readMessage(initiator.writeMessage()), null, `bit ${bit}`);
  }
  for (const prologue of [NOTHING, PROLOGUE.slice(1), concat(PROLOGUE, Uint8Array.of(0))]) {
    const { initiator, responder } = pair(PSK, prologue);
    assert.equal(responder.readMessage(initiator.writeMessage()), null);
  }
});

Deno.test("a peer's key that makes the shared secret all zero is refused, whoever sends it", () => {
  // A peer that has the pre-shared key, and says the neutral element for its ephemeral key. The tag fits.
  const dishonest = { ...noise, publicKey: () => SMALL_ORDER.slice() };
  const responder = new NoiseResponder(noise, PROLOGUE, PSK, RESPONDER.slice());
  const first = new NoiseInitiator(dishonest, PROLOGUE, PSK, INITIATOR.slice()).writeMessage();
  assert.deepEqual(first.subarray(0, 32), SMALL_ORDER);
  assert.deepEqual(responder.readMessage(first), NOTHING);
  assert.equal(responder.writeMessage(), null);
  assert.throws(() => responder.split(), /order/);

  // The same from the responder, who mixes in the secret that it has made certain: zeroes.
  const careless = { ...dishonest, sharedSecret: () => new Uint8Array(32) };
  const other = new NoiseResponder(careless, PROLOGUE, PSK, RESPONDER.slice());
  const initiator = new NoiseInitiator(noise, PROLOGUE, PSK, INITIATOR.slice());
  other.readMessage(initiator.writeMessage());
  assert.equal(initiator.readMessage(other.writeMessage()!), null);
  assert.throws(() => initiator.split(), /order/);
});

Deno.test("the messages come in their order and each once", () => {
  const { initiator, responder } = pair();
  assert.throws(() => initiator.readMessage(new Uint8Array(48)), /order/);
  assert.throws(() => initiator.split(), /order/);
  assert.throws(() => responder.writeMessage(), /order/);
  const first = initiator.writeMessage();
  assert.throws(() => initiator.writeMessage(), /order/);
  responder.readMessage(first);
  assert.throws(() => responder.readMessage(first), /order/);
  initiator.readMessage(responder.writeMessage()!);
  initiator.split();
  assert.throws(() => initiator.split(), /order/);
});

Deno.test("after a message that failed there is nothing more to be had", () => {
  const { initiator, responder } = pair();
  assert.equal(responder.readMessage(new Uint8Array(48)), null);
  assert.throws(() => responder.writeMessage(), /order/);
  assert.throws(() => responder.split(), /order/);
  initiator.writeMessage();
  assert.equal(initiator.readMessage(new Uint8Array(48)), null);
  assert.throws(() => initiator.split(), /order/);
});

Deno.test("ephemeral keys are wiped when they are used up or of no more use, and the pre-shared key never", () => {
  const zeroes = new Uint8Array(32);
  const psk = PSK.slice();
  const [mine, theirs] = [INITIATOR.slice(), RESPONDER.slice()];
  const initiator = new NoiseInitiator(noise, PROLOGUE, psk, mine);
  const responder = new NoiseResponder(noise, PROLOGUE, psk, theirs);
  responder.readMessage(initiator.writeMessage());
  assert.deepEqual(mine, INITIATOR);
  const second = responder.writeMessage()!;
  assert.deepEqual(theirs, zeroes);
  initiator.readMessage(second);
  assert.deepEqual(mine, zeroes);
  assert.deepEqual(psk, PSK);

  const [failed, left] = [RESPONDER.slice(), INITIATOR.slice()];
  new NoiseResponder(noise, PROLOGUE, psk, failed).readMessage(new Uint8Array(48));
  assert.deepEqual(failed, zeroes);
  new NoiseInitiator(noise, PROLOGUE, psk, left).wipe();
  assert.deepEqual(left, zeroes);
});

Deno.test("every intermediate secret is wiped: only Split's keys are left", () => {
  // Everything secret that the primitives hand out: all outputs of HMAC, and the shared secret.
  const secrets: Uint8Array[] = [];
  const keep = (bytes: Uint8Array) => {
    secrets.push(bytes);
    return bytes;
  };
  const watched = {
    ...noise,
    hmac: (key: Uint8Array, data: Uint8Array) => keep(noise.hmac(key, data)),
    sharedSecret: (privateKey: Uint8Array, publicKey: Uint8Array) => {
      const secret = noise.sharedSecret(privateKey, publicKey);
      return secret === null ? null : keep(secret);
    },
  };
  const initiator = new NoiseInitiator(watched, PROLOGUE, PSK, INITIATOR.slice());
  const { responder } = pair();
  responder.readMessage(initiator.writeMessage());
  initiator.readMessage(responder.writeMessage()!);
  const keys = initiator.split();
  assert.ok(secrets.length > 12);
  const left = secrets.filter((secret) => secret.some((byte) => byte !== 0));
  assert.deepEqual(new Set(left), new Set([keys.send, keys.receive]));
});

Deno.test("HKDF has as many outputs as it is asked for, the first two the same", () => {
  const [key, input] = [pattern(32, 4), pattern(50, 5)];
  const two = hkdf(noise, key, input, 2);
  const three = hkdf(noise, key, input, 3);
  assert.deepEqual([two.length, three.length], [2, 3]);
  assert.deepEqual(three.slice(0, 2), two);
  // Section 4.3, written out.
  const temporary = noise.hmac(key, input);
  assert.deepEqual(three[2], noise.hmac(temporary, concat(three[1], Uint8Array.of(3))));
});
