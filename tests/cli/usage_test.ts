import assert from "node:assert/strict";
import { Workplace } from "./program.ts";

const COMMANDS = ["export", "attach", "detach", "set", "status", "list", "info", "copy", "keygen", "bench", "demo"];

Deno.test(
  "every command explains itself, with examples",
  Workplace.test(async (place) => {
    const all = await place.run("--help");
    assert.equal(all.code, 0);
    await Promise.all(COMMANDS.map(async (command) => {
      assert.match(all.stdout, new RegExp(`^  ${command} `, "m"));
      const { code, stdout, stderr } = await place.run(command, "--help");
      assert.equal(code, 0);
      assert.equal(stderr, "");
      assert.match(stdout, new RegExp(`^Usage: dst ${command}`));
      assert.match(stdout, new RegExp(`^Examples:\n  dst ${command}`, "m"));
    }));
    assert.equal((await place.run("help", "copy")).stdout, (await place.run("copy", "-h")).stdout);
    assert.match((await place.run("--version")).stdout, /^dst \d+\.\d+\.\d+\n$/);
  }),
);

Deno.test(
  "no command at all shows the help on standard error",
  Workplace.test(async (place) => {
    const { code, stdout, stderr } = await place.run();
    assert.equal(code, 2);
    assert.equal(stdout, "");
    assert.match(stderr, /^Usage: dst COMMAND/);
  }),
);

Deno.test(
  "what cannot be understood is a line on standard error and exit code 2",
  Workplace.test(async (place) => {
    await Promise.all([
      place.fails(2, /Unknown command "exprot"; did you mean export\?/, "exprot"),
      place.fails(2, /Unknown command "frobnicate" \(see dst --help\)/, "frobnicate"),
      place.fails(2, /Unknown option --lissten; did you mean --listen\?/, "export", "x", "--lissten", "a"),
      place.fails(2, /Nothing to export/, "export"),
      place.fails(2, /--listen: .*not a port/, "export", "x", "--listen", "localhost:70000"),
      place.fails(2, /--digest: "md5" is not one of/, "export", "x", "--digest", "md5"),
      place.fails(2, /--loop: "fast" is not one of/, "attach", "h/x", "--loop", "fast"),
      place.fails(2, /expected HOST\[:PORT\]\/NAME/, "attach", "server"),
      place.fails(2, /--depth: expected a whole number from 1 to 1024/, "attach", "h/x", "--depth", "4096"),
      place.fails(2, /--log-file needs --background/, "attach", "h/x", "--log-file", "log"),
      place.fails(2, /Nothing to set: give one of --resend-interval,/, "set", "0"),
      place.fails(2, /--resends: expected a whole number from 1 to 1000000/, "set", "0", "--resends", "never"),
      place.fails(2, /Missing argument: dst copy SOURCE DESTINATION/, "copy", "a"),
      place.fails(2, /Too many arguments/, "status", "x"),
      place.fails(2, /--verify cannot read standard output again/, "copy", "a", "-", "--verify"),
      place.fails(2, /Cannot read the configuration nothing\.toml: there is no/, "export", "--config", "nothing.toml"),
    ]);
    Deno.writeTextFileSync(`${place.folder}/bad.toml`, '[[exports]]\npath = "x"\nreadonly = true\n');
    await place.fails(2, /bad\.toml:3: unknown key readonly/, "export", "--config", "bad.toml");
    Deno.writeTextFileSync(`${place.folder}/client.toml`, "ping_interval = 2\ndead_after = 1\n");
    await place.fails(2, /client\.toml:2: dead_after: a conn/, "attach", "h/x", "--config", "client.toml");
  }),
);

Deno.test(
  "a machine on which nothing runs has an empty status",
  Workplace.test(async (place) => {
    const { code, stdout } = await place.run("status");
    assert.equal(code, 0);
    assert.equal(stdout, "nothing is attached or exported here\n");
    assert.deepEqual(JSON.parse((await place.run("status", "--json")).stdout), { attachments: [], exports: [] });
    await place.fails(1, /"\/dev\/ublkb0" is not attached here; nothing is/, "detach", "/dev/ublkb0");
  }),
);
