/**
 * Rows of a table of tests in which every two values of different factors meet that may meet.
 *
 * @module
 */

/** The values of each factor. */
export type Factors = Readonly<Record<string, readonly (string | number)[]>>;
/** One value of each factor. */
export type Row<F extends Factors> = { -readonly [Name in keyof F]: F[Name][number] };

/**
 * Makes the rows, the same each time: each next one brings together as many pairs that have not met as a greedy choice
 * finds, so that they are few.
 *
 * @param allows whether a row may be; it is asked about whole rows, and must allow at least one
 */
export function pairwise<const F extends Factors>(factors: F, allows: (row: Row<F>) => boolean): Row<F>[] {
  const all = product(factors).filter(allows);
  const missing = new Set(all.flatMap(pairsOf));
  const rows: Row<F>[] = [];
  while (missing.size > 0) {
    let best = all[0];
    let most = -1;
    for (const row of all) {
      const news = pairsOf(row).filter((pair) => missing.has(pair)).length;
      if (news > most) [best, most] = [row, news];
    }
    for (const pair of pairsOf(best)) missing.delete(pair);
    rows.push(best);
  }
  return rows;
}

/** The names of all pairs of a row. */
export function pairsOf(row: Readonly<Record<string, string | number>>): string[] {
  const entries = Object.entries(row).map(([name, value]) => `${name}=${value}`);
  return entries.flatMap((one, i) => entries.slice(i + 1).map((other) => `${one} ${other}`));
}

/** Every combination. */
export function product<const F extends Factors>(factors: F): Row<F>[] {
  let rows: Record<string, string | number>[] = [{}];
  for (const [name, values] of Object.entries(factors)) {
    rows = rows.flatMap((row) => values.map((value) => ({ ...row, [name]: value })));
  }
  return rows as Row<F>[];
}
