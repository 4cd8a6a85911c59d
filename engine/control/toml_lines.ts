/**
 * On which line of a TOML document (version 1.0.0) something stands: the parser does not say where it found a value.
 *
 * @module
 */

/** Names of keys, and indexes in arrays. */
export type TomlPath = readonly (string | number)[];

const PART = `(?:[A-Za-z0-9_-]+|"(?:[^"\\\\]|\\\\.)*"|'[^']*')`;
const KEY = `${PART}(?:\\s*\\.\\s*${PART})*`;
const HEADER = new RegExp(`^\\s*(\\[\\[?)\\s*(${KEY})\\s*\\]`);
const PAIR = new RegExp(`^\\s*(${KEY})\\s*=`);

/**
 * Finds the line of a key, or of what it belongs to: the array, the inline table, the section.
 *
 * @param content a document that the parser has taken
 * @returns from 1; null when not even its first part is there
 */
export function lineOf(content: string, path: TomlPath): number | null {
  const lines = new Map<string, number>();
  const note = (found: TomlPath, line: number) => {
    for (let parts = 1; parts <= found.length; parts++) {
      const name = nameOf(found.slice(0, parts));
      if (!lines.has(name)) lines.set(name, line);
    }
  };
  /** How many sections each array of sections has so far. */
  const counts = new Map<string, number>();
  let section: (string | number)[] = [];
  let quote: string | null = null;
  for (const [index, line] of content.split("\n").entries()) {
    const isKey = quote === null;
    quote = openQuote(line, quote);
    if (!isKey) continue;
    const header = HEADER.exec(line);
    if (header !== null) {
      section = [];
      const parts = partsOf(header[2]);
      for (const [i, part] of parts.entries()) {
        section.push(part);
        const name = nameOf(section);
        const isNew = i === parts.length - 1 && header[1] === "[[";
        if (isNew) counts.set(name, (counts.get(name) ?? 0) + 1);
        const count = counts.get(name);
        // A name that stands for an array of sections means the latest of them.
        if (count !== undefined) section.push(count - 1);
      }
      note(section, index + 1);
    } else {
      const pair = PAIR.exec(line);
      if (pair !== null) note([...section, ...partsOf(pair[1])], index + 1);
    }
  }
  for (let parts = path.length; parts > 0; parts--) {
    const line = lines.get(nameOf(path.slice(0, parts)));
    if (line !== undefined) return line;
  }
  return null;
}

/** Tells paths apart: an index is not the name of the same digits. */
function nameOf(path: TomlPath): string {
  return JSON.stringify(path);
}

/** The parts of a dotted key, without their quotes. */
function partsOf(key: string): string[] {
  return [...key.matchAll(new RegExp(PART, "g"))].map(([part]) => {
    if (part.startsWith("'")) return part.slice(1, -1);
    if (!part.startsWith('"')) return part;
    try {
      return JSON.parse(part);
    } catch {
      // An escape that JSON does not have: such a key is not found, and its section is named instead.
      return part;
    }
  });
}

/** The quotes of a text of several lines that is open at the line's end, or null. */
function openQuote(line: string, open: string | null): string | null {
  for (let at = 0; at < line.length;) {
    if (open !== null) {
      const end = closeOf(line, at, open);
      if (end < 0) return open.length === 3 ? open : null;
      at = end;
      open = null;
    } else if (line[at] === "#") {
      return null;
    } else if (line[at] === '"' || line[at] === "'") {
      open = line.startsWith(line[at].repeat(3), at) ? line[at].repeat(3) : line[at];
      at += open.length;
    } else {
      at++;
    }
  }
  return open !== null && open.length === 3 ? open : null;
}

/** Where the text that `quote` began ends: behind its closing quotes, or -1. */
function closeOf(line: string, from: number, quote: string): number {
  for (let at = from; at < line.length; at++) {
    if (line[at] === "\\" && quote[0] === '"') at++;
    else if (line.startsWith(quote, at)) return at + quote.length;
  }
  return -1;
}
