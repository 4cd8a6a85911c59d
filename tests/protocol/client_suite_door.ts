/**
 * Cases of a client's hello and door phase (SPEC.md, sections 2, 3 and 6).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { Digest, FrameType, REPLY } from "../../protocol/wire.ts";
import { join, tlv, tlv16, tlvText } from "./bytes.ts";
import type { ClientCases } from "./client_suite.ts";
import { chosen, grantTlvs, type GrantWish, helloRefusal, numbers16, type Visit } from "./scripted_exporter.ts";

/** Registers them. */
export function registerClientDoorCases({ test, manner, key, ciphers: all }: ClientCases): void {
  const { cipher, digest } = manner;
  const usual = chosen(cipher, digest);
  /** The digests that suit the key or its absence. */
  const suitable = key === null
    ? [Digest.XXH64, Digest.CRC32C, Digest.BLAKE2B_256, Digest.NONE]
    : [Digest.BLAKE2B_256, Digest.HMAC_SHA_256];

  test("the hello offers version 1, and ciphers and digests in order of preference", async (client, exporter) => {
    const ciphers = [cipher, ...all.filter((other) => other !== cipher)];
    const digests = [...suitable];
    if (digests.includes(digest as 3)) digests.sort((a, b) => Number(b === digest) - Number(a === digest));
    const attached = client.attach(exporter.port, { ciphers, digests });
    const visit = await exporter.accept();
    const { low, high, tlvs } = await visit.hello();
    assert.deepEqual([low, high], [1, 1]);
    assert.deepEqual(numbers16(tlvs.get(Tlv.CIPHERS)![0]), ciphers);
    assert.deepEqual(numbers16(tlvs.get(Tlv.DIGESTS)![0]), digests);
    assert.deepEqual(tlvs.get(Tlv.KEY_ID)?.[0], key?.id);
    await visit.answerHello(join(tlv(999, [1, 2, 3]), usual));
    await visit.handshake();
    await visit.grant();
    const disk = await attached;
    await Promise.all([disk.leave(), visit.close()]);
  });

  test("a hello that is refused is told in the exporter's words", async (client, exporter) => {
    const refusals: [number, Uint8Array, RegExp][] = [
      [0, helloRefusal(Status.VERSION, "only version 9"), /version/],
      [
        1,
        helloRefusal(Status.NO_COMMON_ALGORITHM, "none", tlv16(Tlv.CIPHERS, [0]), tlv16(Tlv.DIGESTS, [3])),
        /blake2b-256/,
      ],
      [1, helloRefusal(Status.TOO_MANY, "full up\u0007\nto the brim"), /full up.*to the brim/],
      [1, helloRefusal(Status.KEY_REQUIRED, "bring a key"), /key/],
    ];
    for (const [version, body, expected] of refusals) {
      const attached = assert.rejects(client.attach(exporter.port, {}), expected);
      const visit = await exporter.accept();
      await visit.hello();
      await visit.answerHello(body, version);
      await attached;
      await visit.peer.ended();
    }
  });

  test("an answer to the hello that makes no sense ends the connection", async (client, exporter) => {
    const answers: ((visit: Visit) => Promise<void>)[] = [
      (visit) => visit.answerHello(usual, 1, "HTTP/1.1"),
      (visit) => visit.answerHello(usual, 2),
      (visit) => visit.answerHello(chosen(0, 77)),
      (visit) => visit.answerHello(chosen(77, 0)),
      (visit) => visit.answerHello(new Uint8Array(0)),
      (visit) => visit.answerHello(usual.slice(0, -8)),
      (visit) => visit.answerHello(join(usual, tlv(999, [1], 1))),
      (visit) => visit.answerHello(join(usual, tlv16(Tlv.DIGESTS, [digest]))),
    ];
    // What was not offered, and what does not suit a key or its absence.
    for (const weak of [0, 1, 2]) if (key !== null) answers.push((visit) => visit.answerHello(chosen(0, weak)));
    for (const strong of [1, 2]) if (key === null) answers.push((visit) => visit.answerHello(chosen(strong, 0)));
    if (key === null) answers.push((visit) => visit.answerHello(chosen(0, Digest.HMAC_SHA_256)));
    for (const answer of answers) {
      const attached = assert.rejects(client.attach(exporter.port, {}));
      const visit = await exporter.accept();
      await visit.hello();
      await answer(visit);
      await attached;
      await visit.peer.ended();
    }
  });

  test("OPEN says which export, who asks, and for what", async (client, exporter) => {
    const text = (value: Uint8Array[] | undefined) => new TextDecoder().decode(value?.[0]);
    for (const options of [{}, { readOnly: true }, { steal: true }]) {
      const attached = client.attach(exporter.port, options);
      const visit = await exporter.accept();
      await visit.greet();
      const tlvs = await visit.grant({ access: "readOnly" in options ? 0 : 1 });
      assert.equal(text(tlvs.get(Tlv.EXPORT)), "disk");
      assert.equal(tlvs.get(Tlv.SESSION)![0].length, 16);
      assert.ok(tlvs.get(Tlv.SESSION)![0].some((byte) => byte !== 0));
      assert.notEqual(text(tlvs.get(Tlv.HOLDER)), "");
      assert.equal(tlvs.get(Tlv.ACCESS)![0][0], "readOnly" in options ? 0 : 1);
      assert.equal(tlvs.has(Tlv.STEAL), "steal" in options);
      assert.ok(!tlvs.has(Tlv.RESUME));
      const disk = await attached;
      const [isClean] = await Promise.all([disk.leave(), visit.close()]);
      assert.ok(isClean);
    }
  });

  test("a refused OPEN is told, with the holder's name", async (client, exporter) => {
    const current = tlv(
      Tlv.CURRENT,
      join(new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), new TextEncoder().encode("ann at home")),
    );
    const refusals: [number, Uint8Array[], RegExp][] = [
      [Status.NOT_FOUND, [], /no export/],
      [Status.BUSY, [current], /ann at home/],
      [Status.DENIED, [], /permi/],
      [Status.NO_RESOURCES, [], /cannot take another client: because of the weather/],
      [99, [], /because of the weather/],
    ];
    for (const [status, more, expected] of refusals) {
      const attached = assert.rejects(client.attach(exporter.port, {}), expected);
      const visit = await exporter.accept();
      await visit.greet();
      await visit.refuse(status, "because of the weather", ...more);
      await attached;
      await visit.peer.ended();
    }
  });

  test("FENCING while OPEN waits is patience, not an error", async (client, exporter) => {
    const attached = client.attach(exporter.port, {});
    const visit = await exporter.accept();
    await visit.greet();
    await visit.request(FrameType.OPEN);
    for (let i = 3; i > 0; i--) await visit.peer.send({ type: FrameType.FENCING, length: i });
    await visit.peer.send({ type: FrameType.OPEN | REPLY, payload: grantTlvs() });
    visit.peer.enterLane(0);
    const disk = await attached;
    await Promise.all([disk.leave(), visit.close()]);
  });

  test("a grant outside its limits, or without one of its TLVs, ends the connection", async (client, exporter) => {
    const wishes: GrantWish[] = [
      { without: Tlv.SIZE },
      { without: Tlv.CREDITS },
      { without: Tlv.IDENTITIES },
      { slots: 0 },
      { slots: 1025 },
      { maxPayload: 4095 },
      { maxPayload: 1048577 },
      { payloadBytes: 1024 },
      { size: 1048577 },
      { blocks: [0, 4096, 4096, 0] },
      { blocks: [768, 4096, 4096, 0] },
      { blocks: [131072, 131072, 131072, 0] },
      { access: 2 },
      { lanes: 0 },
      { lanes: 65 },
      { leaseMs: 86_400_001 },
    ];
    for (const wish of wishes) {
      const attached = assert.rejects(client.attach(exporter.port, {}), `${JSON.stringify(wish)} must be refused`);
      const [visit] = await Promise.all([exporter.serve(wish), attached]);
      await visit.peer.ended();
    }
  });

  test("an unknown TLV in a grant is skipped, a required one ends the connection", async (client, exporter) => {
    for (const flags of [0, 1]) {
      const attached = client.attach(exporter.port, {});
      const rejected = flags === 1 ? assert.rejects(attached) : null;
      const visit = await exporter.accept();
      await visit.greet();
      await visit.request(FrameType.OPEN);
      const payload = join(tlvText(999, "later", flags), grantTlvs());
      await visit.peer.send({ type: FrameType.OPEN | REPLY, payload });
      visit.peer.enterLane(0);
      if (rejected !== null) {
        await rejected;
        await visit.peer.ended();
        continue;
      }
      const disk = await attached;
      await Promise.all([disk.leave(), visit.close()]);
    }
  });
}
