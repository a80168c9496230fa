/** The steps of the first run, in their order. */
export const STEPS = ['vault', 'looked', 'profile', 'launched', 'verified'] as const;

/** Name of a step. */
export type StepName = (typeof STEPS)[number];

/** What is done already. It is read from the broker, so that the first run goes on where it was left. */
export type Facts = Record<StepName, boolean>;

/** The step that comes next: the one after the last that is done; undefined when all are. */
export function present(facts: Facts): StepName | undefined {
  const last = STEPS.findLastIndex((step) => facts[step]);
  // Nothing counts without a vault.
  return facts.vault ? STEPS[last + 1] : 'vault';
}
