/**
 * Errors that are a person's to read: one line, and what to do about it.
 *
 * @module
 */

/** Exit codes of every command. */
export const ExitCode = {
  OK: 0,
  /** What was asked for could not be done. */
  FAILED: 1,
  /** What was asked for could not be understood. */
  USAGE: 2,
} as const;

/** Something that could not be done. The message says what and why, and what to do where there is something to do. */
export class Failure extends Error {
  override readonly name = "Failure";

  /**
   * @param message one line
   * @param exitCode an {@link ExitCode}
   */
  constructor(message: string, readonly exitCode: number = ExitCode.FAILED) {
    super(message);
  }
}

/** A daemon has ended as it was asked to, but something may be lost. The message says what. */
export class LossFailure extends Failure {}

/** Arguments that could not be understood. */
export function usageFailure(message: string): Failure {
  return new Failure(message, ExitCode.USAGE);
}

/** The text of anything thrown, in one line. */
export function messageOf(error: unknown): string {
  const message = error instanceof Error && error.message !== "" ? error.message : String(error);
  return message.replace(/\s*\n\s*/g, " ").trim();
}

/** The exit code that goes with anything thrown. */
export function exitCodeOf(error: unknown): number {
  return error instanceof Failure ? error.exitCode : ExitCode.FAILED;
}
