/**
 * Numbers made readable: medians and aligned columns.
 *
 * @module
 */

/**
 * The middle of the values; the mean of the two middle ones where their number is even.
 *
 * @throws RangeError when there are no values
 */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("Cannot take a median: there are no values");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Rows of equally many cells as lines: the first column to the left, all others to the right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row.map((cell, column) => column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])).join("  ")
  );
  return lines.map((line) => line.trimEnd()).join("\n");
}
