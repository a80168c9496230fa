/**
 * Says whether time jumped between two looks at both clocks of the machine: after a suspend the wall clock is ahead of the
 * monotonic one, after a change of the wall clock it is off by the change.
 */
export function jumped(before: Look, after: Look, toleranceMs = 1500): boolean {
  return Math.abs(after.wall - before.wall - (after.steady - before.steady)) > toleranceMs;
}

/** Both clocks at one moment, in milliseconds. */
export interface Look {
  /** `Date.now()`. */
  wall: number;
  /** `performance.now()`. */
  steady: number;
}
