import assert from "node:assert/strict";
import { asUsage, type CommandSpec, helpOf, helpOfAll, parseArguments } from "./arguments.ts";
import { Failure } from "./failure.ts";

const spec: CommandSpec = {
  name: "try",
  summary: "Tries things",
  positionals: "WHAT [MORE]",
  count: [1, 2],
  options: [
    { name: "--size", value: "N", help: "how large" },
    { name: "--kind", value: "KIND", choices: ["round", "square"], help: "which" },
    { name: "--with", value: "THING", repeatable: true, help: "what goes with it" },
    { name: "--fast", help: "hurry" },
  ],
  notes: ["A note. ".repeat(30).trim()],
  examples: [["try this", "tries this"]],
};

function parse(...args: string[]) {
  return parseArguments(spec, args)!;
}

function refuses(message: RegExp, ...args: string[]) {
  assert.throws(() => parse(...args), (error: unknown) => {
    assert(error instanceof Failure);
    assert.equal(error.exitCode, 2);
    assert.match(error.message, message);
    assert(!error.message.includes("\n"));
    return true;
  });
}

Deno.test("options and positional arguments may come in any order", () => {
  const args = parse("--fast", "a", "--size", "3", "--kind=round", "b", "--with", "x", "--with=y=z");
  assert.deepEqual(args.positionals, ["a", "b"]);
  assert(args.has("--fast"));
  assert.equal(args.value("--size"), "3");
  assert.equal(args.value("--kind"), "round");
  assert.deepEqual(args.values("--with"), ["x", "y=z"]);
  assert(!parse("a").has("--fast"));
  assert.equal(parse("a").value("--size"), undefined);
});

Deno.test("a lone dash is positional, and so is all that follows two dashes", () => {
  assert.deepEqual(parse("-", "--fast").positionals, ["-"]);
  assert.deepEqual(parse("--", "--fast", "--").positionals, ["--fast", "--"]);
});

Deno.test("an unknown option is refused with the nearest one that there is", () => {
  refuses(/Unknown option --sise; did you mean --size\?/, "a", "--sise", "3");
  refuses(/Unknown option --fsat; did you mean --fast\?/, "a", "--fsat");
  refuses(/Unknown option --completely-different \(see dst try --help\)/, "--completely-different");
  refuses(/Unknown option -x/, "a", "-x");
});

Deno.test("a value that is missing, too much or not among the choices is refused", () => {
  refuses(/--size needs a value: --size N/, "a", "--size");
  refuses(/--size needs a value/, "a", "--size=");
  refuses(/--size needs a value/, "a", "--size", "--fast");
  refuses(/--fast takes no value/, "a", "--fast=1");
  refuses(/--size is given twice/, "a", "--size", "1", "--size", "2");
  refuses(/--fast is given twice/, "a", "--fast", "--fast");
  refuses(/"rond" is not one of round, square; did you mean round\?/, "a", "--kind", "rond");
  assert.equal(parse("a", "--size=--odd").value("--size"), "--odd");
});

Deno.test("too few or too many positional arguments are refused", () => {
  refuses(/Missing argument: dst try WHAT \[MORE\]/);
  refuses(/Too many arguments: "c"/, "a", "b", "c");
});

Deno.test("whole numbers are checked against their bounds", () => {
  assert.equal(parse("a", "--size", "7").integer("--size", 1, 7), 7);
  assert.equal(parse("a").integer("--size", 1, 7), undefined);
  for (const bad of ["0", "8", "1.5", "1e1", "0x1", "", " 1", "-1", "9".repeat(400)]) {
    const args = parseArguments(spec, ["a", `--size=${bad || " "}`])!;
    assert.throws(() => args.integer("--size", 1, 7), /--size: expected a whole number from 1 to 7/, bad);
  }
});

Deno.test("an error of range in reading becomes one of usage, any other stays", () => {
  assert.throws(() =>
    parse("a", "--size", "x").read("--size", () => {
      throw new RangeError("no");
    }), { name: "Failure", message: "--size: no" });
  assert.throws(() =>
    asUsage(() => {
      throw new TypeError();
    }), TypeError);
});

Deno.test("asking for an option that is not declared is the programmer's error", () => {
  assert.throws(() => parse("a").has("--other"), TypeError);
});

Deno.test("help is asked for by --help or -h, whatever else is missing", () => {
  assert.equal(parseArguments(spec, ["--help"]), null);
  assert.equal(parseArguments(spec, ["-h", "--nonsense"]), null);
  const help = helpOf(spec);
  for (const { name, help: what } of spec.options) assert(help.includes(name) && help.includes(what));
  assert.match(help, /dst try this\n {6}tries this/);
  assert.match(help, /one of round, square/);
  for (const line of help.split("\n")) assert(line.length <= 80, line);
  assert.match(helpOfAll([spec]), /try {2}Tries things/);
});
