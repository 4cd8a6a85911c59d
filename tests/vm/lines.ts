/**
 * Text in arbitrary pieces, cut into lines.
 *
 * @module
 */

/** Cuts a stream of text into its lines, without their ends (`\n` or `\r\n`); a last line needs no end. */
export class TextLineStream extends TransformStream<string, string> {
  constructor() {
    let rest = "";
    super({
      transform(chunk, controller) {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) controller.enqueue(line.replace(/\r$/, ""));
      },
      flush(controller) {
        if (rest !== "") controller.enqueue(rest);
      },
    });
  }
}
