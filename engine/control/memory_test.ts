import assert from "node:assert/strict";
import { ownEnvironment } from "./memory.ts";

const MODULE = JSON.stringify(new URL("./memory.ts", import.meta.url).href);

/** Runs a program that may use the module's functions; what it prints, as JSON. */
async function run(program: string, env: Record<string, string> = {}): Promise<unknown> {
  const text = `import * as memory from ${MODULE};\n${program}`;
  const command = new Deno.Command(Deno.execPath(), { args: ["eval", text], env, stdout: "piped", stderr: "piped" });
  const { code, stdout, stderr } = await command.output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test("V8's flags that the user has set stay, and none comes twice", async () => {
  const own = ownEnvironment().DENO_V8_FLAGS?.split(",") ?? [];
  assert.deepEqual(own.includes("--no-memory-protection-keys"), Deno.build.arch === "x86_64");
  const program = "console.log(JSON.stringify(memory.ownEnvironment().DENO_V8_FLAGS.split(',')));";
  const flags = await run(program, { DENO_V8_FLAGS: ["--stack-size=900", ...own].join(",") }) as string[];
  assert.deepEqual(flags.sort(), [...new Set(["--stack-size=900", ...own])].sort());
});

Deno.test("a process is killed as late for want of memory as it is permitted", async () => {
  const program = `
    const path = "/proc/self/oom_score_adj";
    Deno.writeTextFileSync(path, "500");
    memory.spareFromOutOfMemory();
    const score = Number(Deno.readTextFileSync(path));
    memory.spareFromOutOfMemory();
    console.log(JSON.stringify([score, Number(Deno.readTextFileSync(path))]));`;
  const [once, twice] = await run(program) as number[];
  assert(once === -1000 || once === 0, `${once}`);
  assert.equal(twice, once);
});

Deno.test("a process becomes an I/O flusher with all its threads, or goes on as it is", async () => {
  const program = `
    const before = Deno.env.get("BEFORE");
    if (before === undefined) Deno.env.set("BEFORE", String(Deno.pid));
    memory.beIoFlusher();
    const flags = [...Deno.readDirSync("/proc/self/task")].map(({ name }) => {
      const stat = Deno.readTextFileSync("/proc/self/task/" + name + "/stat");
      return (Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[6]) & 0x180000) === 0x180000;
    });
    console.log(JSON.stringify([String(Deno.pid) === Deno.env.get("BEFORE"), [...new Set(flags)],
      Deno.env.get("DST_EXECUTED") ?? null]));`;
  const [isSame, flags, mark] = await run(program) as [boolean, boolean[], string | null];
  assert.equal(isSame, true, "it is the same process");
  assert.equal(flags.length, 1, "all threads are, or none is");
  assert.equal(mark, null, "what it tells itself is not passed on");
});
