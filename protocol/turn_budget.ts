/**
 * How much of a thread's turn one direction of a lane may take for ciphers and digests. What is more waits for a later
 * turn, so that a small request of one lane never waits behind all that another has to do.
 *
 * @module
 */

/** What one direction may still do in the present turn. */
export class TurnBudget {
  #turn = -1;
  #leftBytes = 0;

  /**
   * Takes from the budget, if there is enough; of a fresh one anything may be taken, so that there is always progress.
   *
   * @param turn the number of the host's present turn
   * @param bytes how much is to be sealed or opened in one go
   * @param turnBytes how much may be in one turn
   */
  spend(turn: number, bytes: number, turnBytes: number): boolean {
    if (turn !== this.#turn) {
      this.#turn = turn;
      this.#leftBytes = turnBytes;
    } else if (bytes > this.#leftBytes) return false;
    this.#leftBytes -= bytes;
    return true;
  }

  /** Forgets what was taken. */
  reset(): void {
    this.#turn = -1;
  }
}
