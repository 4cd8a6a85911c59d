/**
 * Cases of the channel under a key, against a client: who it speaks with, and what becomes of bytes that somebody on the
 * way has changed, kept or moved (SPEC.md, 4.2 and 4.3).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType } from "../../protocol/wire.ts";
import { join, randomBytes, randomOf, tlv, tlv16, tlvText } from "./bytes.ts";
import { NOISE_MESSAGE, type PresharedKey } from "./channel.ts";
import type { ClientCases } from "./client_suite.ts";
import { chosen, replyTo, ScriptedExporter } from "./scripted_exporter.ts";

const { READ } = Operation;

/** Registers them. */
export function registerClientChannelCases(cases: ClientCases, key: PresharedKey): void {
  const { test, losesRead, manner } = cases;
  const { cipher, digest, seed } = manner;
  const payload = randomBytes(seed, 8192);

  test(
    "an exporter's message of the handshake in which any byte is another one is not believed",
    async (client, exporter) => {
      const random = randomOf(seed);
      for (let at = 0; at < NOISE_MESSAGE; at++) {
        if (at % 16 !== 0 && at !== NOISE_MESSAGE - 1 && random() < 0.7) continue;
        const attached = assert.rejects(client.attach(exporter.port, {}), /authentic/, `byte ${at}, seed ${seed}`);
        const visit = await exporter.accept();
        await visit.hello();
        await visit.answerHello(chosen(cipher, digest));
        await visit.handshake((message) => {
          message[at] ^= 1 << Math.floor(random() * 8);
          return message;
        });
        await attached;
        await visit.peer.ended();
      }
    },
  );

  test("an exporter that does not have the key is not believed, whatever it says", async (client, exporter) => {
    const message = randomBytes(seed, NOISE_MESSAGE);
    const echo = async (visit: { peer: { take(bytes: number): Promise<Uint8Array> } }) =>
      await visit.peer.take(NOISE_MESSAGE);
    for (const answers of ["noise", "an echo", "zeroes"]) {
      const attached = assert.rejects(client.attach(exporter.port, {}), /authentic/, answers);
      const visit = await exporter.accept();
      await visit.hello();
      await visit.answerHello(chosen(cipher, digest));
      const theirs = await echo(visit);
      await visit.peer.write(answers === "noise" ? message : answers === "zeroes" ? new Uint8Array(48) : theirs);
      await attached;
      await visit.peer.ended();
    }
    using impostor = new ScriptedExporter(manner, { id: key.id, secret: randomBytes(seed + 1, 32) });
    const attached = assert.rejects(client.attach(impostor.port, {}), /authentic/);
    const visit = await impostor.accept();
    await visit.hello();
    await visit.answerHello(chosen(cipher, digest));
    assert.ok(!await visit.trusts(), "nor can it believe the client");
    visit.peer.close();
    await attached;
  });

  test("the handshake's answer of another connection is not believed", async (client, exporter) => {
    let recorded: Uint8Array = new Uint8Array(0);
    const first = client.attach(exporter.port, {});
    const visit = await exporter.accept();
    await visit.hello();
    await visit.answerHello(chosen(cipher, digest));
    await visit.handshake((message) => recorded = message);
    await visit.grant();
    const disk = await first;
    await Promise.all([disk.leave(), visit.close()]);
    const second = assert.rejects(client.attach(exporter.port, {}), /authentic/);
    const again = await exporter.accept();
    await again.hello();
    await again.answerHello(chosen(cipher, digest));
    await again.peer.take(NOISE_MESSAGE);
    await again.peer.write(recorded);
    await second;
    await again.peer.ended();
  });

  test("what somebody has changed in the exporter's answer to the hello is found out", async (client, exporter) => {
    const others = [
      // All of these the client would accept from the exporter itself.
      join(chosen(cipher, digest), tlv(999, [1, 2, 3])),
      join(chosen(cipher, digest), tlvText(Tlv.TEXT, "never mind")),
      join(tlv16(Tlv.DIGESTS, [digest]), tlv16(Tlv.CIPHERS, [cipher]), chosen(0, 0).slice(-16)),
      ...(cipher === 0 ? [chosen(0, digest === 3 ? 4 : 3), chosen(1, 0)] : [chosen(0, 3), chosen(0, 4)]),
    ];
    for (const [index, other] of others.entries()) {
      const attached = assert.rejects(client.attach(exporter.port, {}), `answer ${index}`);
      const visit = await exporter.accept();
      await visit.hello();
      await visit.answerHelloThrough(chosen(cipher, digest), (bytes) => {
        new DataView(bytes.buffer).setUint32(12, other.length, true);
        return join(bytes.slice(0, 16), other);
      });
      assert.ok(!await visit.trusts(), `answer ${index}`);
      visit.peer.close();
      await attached;
    }
  });

  test("a reply that was recorded, dropped, moved or cut never reaches the application", async (client, exporter) => {
    await losesRead(exporter, client, async ({ peer }, request) => {
      const reply = peer.next(replyTo(request, { payload }));
      // The same number twice: the first is another READ's, which was never asked for.
      const ping = peer.next({ type: FrameType.RESIZED, offset: 1048576 });
      await peer.write(join(ping, reply));
    }, "two frames in the wrong order");
    await losesRead(exporter, client, async ({ peer }, request) => {
      const first = peer.next({ type: FrameType.RESIZED, offset: 1048576 });
      await peer.write(join(first, first, peer.next(replyTo(request, { payload }))));
    }, "a frame twice");
    await losesRead(exporter, client, async ({ peer }, request) => {
      peer.next({ type: FrameType.RESIZED, offset: 1048576 });
      await peer.write(peer.next(replyTo(request, { payload })));
    }, "a frame that was dropped");
    await losesRead(exporter, client, async ({ peer }, request) => {
      const reply = peer.next(replyTo(request, { payload }));
      const ping = peer.next({ type: FrameType.PING, offset: 5 });
      await peer.write(join(reply.slice(0, reply.length - ping.length), ping));
    }, "a frame that was cut, and another in the place of its end");
    await losesRead(exporter, client, async ({ peer }, request) => {
      const reply = peer.next(replyTo(request, { payload }));
      const other = peer.next(replyTo(request, { payload: randomBytes(seed + 2, 8192) }));
      await peer.write(join(reply.slice(0, peer.prefixBytes), other.slice(peer.prefixBytes)));
    }, "the payload of another frame");
  });

  test(
    "a reply that was sealed for the other direction, or another connection, ends the session",
    async (client, exporter) => {
      await losesRead(exporter, client, async ({ peer }, request) => {
        peer.sender = peer.receiver;
        await peer.write(peer.next(replyTo(request, { payload })));
      }, "the client's own key");
      // Both connections are at the same place: the frame would be the right one in the other.
      const [one, oneVisit] = await Promise.all([client.attach(exporter.port, {}), exporter.serve()]);
      await losesRead(exporter, client, async ({ peer }, request) => {
        const reading = one.submit(READ, 4096, 8192);
        const theirs = await oneVisit.take();
        assert.equal(theirs.sequence, request.sequence);
        assert.equal(oneVisit.peer.sent, peer.sent);
        const reply = oneVisit.peer.next(replyTo(theirs, { payload }));
        await peer.write(reply);
        await oneVisit.peer.write(reply);
        assert.deepEqual((await reading).payload, payload);
      }, "another connection's key");
      await Promise.all([one.leave(), oneVisit.close()]);
    },
  );
}
