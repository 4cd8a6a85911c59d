import assert from "node:assert/strict";
import { parse } from "smol-toml";
import { lineOf, type TomlPath } from "./toml_lines.ts";

/** Each line that is marked `# HERE` is the line of the path. */
function check(path: TomlPath, content: string): void {
  parse(content);
  const lines = content.split("\n");
  assert.equal(lineOf(content, path), lines.findIndex((line) => line.includes("# HERE")) + 1, JSON.stringify(path));
}

Deno.test("a key is found on its line, in whichever section it is", () => {
  check(["listen"], 'nbd = "x"\nlisten = "y" # HERE\n');
  check(["limits", "lanes"], "lanes = 1\n[other]\nlanes = 2\n[limits]\nlanes = 3 # HERE\n");
  check(["exports", 1, "path"], '[[exports]]\npath = "a"\n[[exports]]\nname = "x"\npath = "b" # HERE\n');
  check(["exports", 0, "path"], '[[keys]]\npath = "k"\n[[exports]]\npath = "a" # HERE\n[[exports]]\npath = "b"\n');
  check(
    ["exports", 1, "permissions", "alice"],
    '[[exports]]\n[exports.permissions]\nalice = "read"\n[[exports]]\n[exports.permissions]\nbob = "read"\nalice = "x" # HERE\n',
  );
  check(["exports", 0, "permissions", "alice"], '[[exports]]\npermissions.alice = "read" # HERE\n');
  check(["a", 1, "b", 0, "c"], "[[a]]\n[[a.b]]\nc = 1\n[[a]]\n[[a.b]]\nc = 2 # HERE\n[[a.b]]\nc = 3\n");
});

Deno.test("keys may be quoted, dotted, and have spaces around them", () => {
  check(["a b", "*"], '["a b"]\n"*" = 1 # HERE\n');
  check(["a", "b.c"], " [ a ]\n 'b.c'  =  1 # HERE\n");
  check(["a", "b", "c"], 'a . b . "c" = 1 # HERE\n');
  check(["é"], '"\\u00e9" = 1 # HERE\n');
  check(["x"], '# x = 0\n"x" = 1 # HERE\n');
});

Deno.test("what has no line of its own is found where it belongs to", () => {
  check(["exports", 1, "path"], "[[exports]]\n[[exports]] # HERE\nname = 'x'\n");
  check(["digests", 1], "a = 1\ndigests = [ # HERE\n'x',\n'y',\n]\n");
  check(["p", "alice"], 'p = { alice = "read" } # HERE\n');
  check(["exports", 0, "permissions", "x"], '[[exports]]\n[exports.permissions] # HERE\nalice = "read"\n');
  assert.equal(lineOf("a = 1\n", ["b"]), null);
  assert.equal(lineOf("[[exports]]\n", ["exports", 1, "path"]), 1);
  assert.equal(lineOf("", []), null);
});

Deno.test("what stands in a text of several lines is no key", () => {
  check(["b"], 'a = """\nb = 1\n[c]\n"""\nb = 2 # HERE\n');
  check(["b"], "a = '''\nb = 1\n''' # '''\nb = 2 # HERE\n");
  check(["b"], 'a = """\\"""\nb = 1\n"""\nb = 2 # HERE\n');
  check(["b"], 'a = "#\'\'\'" # """\nb = 2 # HERE\n');
  check(["b"], 'a = """x""" # HERE not\nb = 2\n'.replace("# HERE not", "").replace("b = 2", "b = 2 # HERE"));
  check(["b"], 'a = \'\\\' # """\nb = 2 # HERE\n');
});
