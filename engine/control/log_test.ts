import assert from "node:assert/strict";

const LOG = new URL("log.ts", import.meta.url).href;

async function run(code: string): Promise<{ stdout: string; stderr: string; code: number }> {
  const program = `import { logger, startLog, writeOutput } from ${JSON.stringify(LOG)};\n${code}`;
  const { code: exitCode, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", program],
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  return { stdout: decoder.decode(stdout), stderr: decoder.decode(stderr), code: exitCode };
}

Deno.test("the log goes to standard error, from the asked level on, with its area", async () => {
  const { stdout, stderr } = await run(`
    startLog("warning");
    logger("exporter").info("not shown");
    logger("exporter").warning("The disk {name} is slow ({ms})", { name: "a\\u001b[31m\\nb", ms: 7 });
    writeOutput("output\\n");`);
  assert.equal(stdout, "output\n");
  const lines = stderr.trim().split("\n").filter((line) => line.includes("slow") || line.includes("shown"));
  assert.equal(lines.length, 1);
  assert.match(lines[0], /^\d{4}-.*Z \[warning\] .*exporter: The disk a\?\[31m\?b is slow \(7\)$/i);
});

Deno.test("output that nobody reads is dropped without an error", async () => {
  const program = `import { writeOutput } from ${JSON.stringify(LOG)};
    for (let i = 0; i < 100; i++) writeOutput("x".repeat(65536));
    Deno.exit(7);`;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", program], stdout: "piped", stderr: "null" }).spawn();
  await child.stdout.cancel();
  assert.equal((await child.status).code, 7);
});
