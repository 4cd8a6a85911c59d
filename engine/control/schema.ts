/**
 * What the schemas of the configuration files are made of.
 *
 * @module
 */
import * as v from "valibot";

/** A text that is not empty. */
export const text = v.pipe(v.string("expected text in quotes"), v.nonEmpty("must not be empty"));

/** A switch. */
export const flag = v.boolean("expected true or false");

/** A whole number within bounds. */
export function whole(least: number, most: number) {
  const message = `expected a whole number from ${least} to ${most}`;
  return v.pipe(v.number(message), v.integer(message), v.minValue(least, message), v.maxValue(most, message));
}

/** A text as a function reads it that throws RangeError. */
export function textRead<T>(read: (text: string) => T) {
  return v.pipe(text, v.rawTransform<string, T>((context) => tryRead(context, read)));
}

/** A list of texts, each as a function reads it that throws RangeError. */
export function listRead<T>(read: (text: string) => T) {
  return v.array(textRead(read), "expected a list of texts");
}

/** A list of texts, as a function reads them with commas in between that throws RangeError. */
export function wordsRead<T>(read: (text: string) => T) {
  return v.pipe(
    v.array(text, "expected a list of texts"),
    v.nonEmpty("must not be empty"),
    v.rawTransform<string[], T>((context) => tryRead(context, (words) => read(words.join(",")))),
  );
}

/** Transforms a value by a function that throws RangeError: its message is the issue's. */
export function tryRead<In, Out>(
  { dataset, addIssue, NEVER }: v.RawTransformContext<In>,
  read: (value: In) => Out,
): Out {
  try {
    return read(dataset.value);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    addIssue({ message: error.message });
    return NEVER;
  }
}
