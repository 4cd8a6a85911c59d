/**
 * What commands print on standard output: text for people, or one JSON object a line for programs.
 *
 * @module
 */
import { writeOutput } from "./log.ts";

/** Something that happened, as both kinds of reader get it. */
export interface Announcement {
  /** Has at least an `event`. */
  readonly json: Readonly<Record<string, unknown>>;
  readonly text: string;
}

/** The line that an announcement is on standard output. */
export function lineOf(announcement: Announcement, json: boolean): string {
  return (json ? JSON.stringify(announcement.json) : announcement.text) + "\n";
}

/** Prints an announcement. */
export function announce(announcement: Announcement, json: boolean): void {
  writeOutput(lineOf(announcement, json));
}

/**
 * A table: the columns are as wide as their widest cell, two spaces apart.
 *
 * @param rows the first is the heading; all have the same number of cells
 * @param right indexes of the columns whose cells stand at the right
 */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row.map((cell, column) => right.includes(column) ? cell.padStart(widths[column]) : cell.padEnd(widths[column]))
      .join("  ").trimEnd()
  );
  return lines.join("\n") + "\n";
}
