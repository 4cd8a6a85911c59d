import assert from "node:assert/strict";
import { callControl, type ControlHandlers, ControlServer, lines } from "./socket.ts";

const PATIENCE_MS = 10_000;

function withServer(handlers: Partial<ControlHandlers>, work: (path: string, server: ControlServer) => Promise<void>) {
  return async () => {
    const folder = Deno.makeTempDirSync();
    const path = `${folder}/control.sock`;
    const server = new ControlServer(path, {
      status: () => Promise.resolve({ fine: true }),
      detach: () => Promise.resolve(),
      set: (settings) => Promise.resolve(settings),
      ...handlers,
    });
    try {
      await work(path, server);
    } finally {
      await server.close();
      Deno.removeSync(folder, { recursive: true });
    }
  };
}

Deno.test(
  "a daemon says how it is",
  withServer({}, async (path) => {
    assert.deepEqual(await callControl(path, { command: "status" }, PATIENCE_MS), { fine: true });
    assert.equal(await callControl(path, { command: "detach", force: false }, PATIENCE_MS), null);
    const settings = { resends: "forever" };
    assert.deepEqual(await callControl(path, { command: "set", settings }, PATIENCE_MS), settings);
  }),
);

Deno.test(
  "a refusal arrives with its message, and force arrives too",
  withServer({
    detach: (force) => force ? Promise.resolve() : Promise.reject(new Error("/mnt is mounted from it")),
  }, async (path) => {
    const refused = callControl(path, { command: "detach", force: false }, PATIENCE_MS);
    await assert.rejects(refused, { name: "Failure", message: "/mnt is mounted from it" });
    await callControl(path, { command: "detach", force: true }, Infinity);
  }),
);

Deno.test(
  "several requests on one connection are answered in order, and nonsense is answered too",
  withServer({}, async (path) => {
    const connection = await Deno.connect({ transport: "unix", path });
    const text = '{"command":"status"}\n{"command":"fly"}\nnonsense\nnull\n{"command":"status"}\n';
    await connection.write(new TextEncoder().encode(text));
    const answers: boolean[] = [];
    for await (const line of lines(connection, 4096)) {
      answers.push(JSON.parse(line).ok);
      if (answers.length === 5) break;
    }
    assert.deepEqual(answers, [true, false, false, false, true]);
    connection.close();
  }),
);

Deno.test(
  "a line without end closes its connection and no other",
  withServer({}, async (path) => {
    const connection = await Deno.connect({ transport: "unix", path });
    await connection.write(new Uint8Array(8192).fill(0x20));
    let count: number | null = null;
    try {
      count = await connection.read(new Uint8Array(1));
    } catch {
      // Reset instead of closed: the server had not read it all.
    }
    assert.equal(count, null);
    connection.close();
    assert.deepEqual(await callControl(path, { command: "status" }, PATIENCE_MS), { fine: true });
  }),
);

Deno.test(
  "a daemon that does not answer is given up",
  withServer({ detach: () => new Promise<void>((resolve) => setTimeout(resolve, 200)) }, async (path) => {
    const asked = callControl(path, { command: "detach", force: false }, 20);
    await assert.rejects(asked, /does not answer: nothing came in 20 ms/);
  }),
);

Deno.test("closing sends the answers that are under way", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let closed: Promise<void> | null = null;
  await withServer({ detach: () => promise }, async (path, server) => {
    const answer = callControl(path, { command: "detach", force: false }, PATIENCE_MS);
    await callControl(path, { command: "status" }, PATIENCE_MS);
    const close = server.close.bind(server);
    closed = close();
    server.close = () => closed!;
    resolve();
    assert.equal(await answer, null);
  })();
});

Deno.test("a socket that nobody serves is an answer too", async () => {
  await assert.rejects(callControl("/nonexistent.sock", { command: "status" }, PATIENCE_MS), /does not answer/);
});
