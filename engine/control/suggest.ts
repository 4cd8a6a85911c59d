/**
 * "Did you mean": the nearest of a few known words.
 *
 * @module
 */

/**
 * The known word that is nearest to what was typed, or null when none is near: at most one edit in three characters.
 * Neighbouring letters swapped are one edit.
 */
export function nearest(typed: string, known: Iterable<string>): string | null {
  let best: string | null = null;
  let bestEdits = Math.max(1, Math.floor(typed.length / 3)) + 1;
  for (const word of known) {
    const edits = word.startsWith(typed) && typed.length >= 3 ? 1 : editsBetween(typed, word);
    if (edits < bestEdits) {
      best = word;
      bestEdits = edits;
    }
  }
  return best;
}

/** The number of insertions, deletions, replacements and swaps of neighbours from one word to the other. */
function editsBetween(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const row = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = last[j - 1] + (from[i - 1] === to[j - 1] ? 0 : 1);
      row[j] = Math.min(replaced, last[j] + 1, row[j - 1] + 1);
      if (i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]) {
        row[j] = Math.min(row[j], beforeLast[j - 2] + 1);
      }
    }
    beforeLast = last;
    last = row;
  }
  return last[to.length];
}

/** `; did you mean X?`, or nothing. */
export function suggestion(typed: string, known: Iterable<string>): string {
  const word = nearest(typed, known);
  return word === null ? "" : `; did you mean ${word}?`;
}
