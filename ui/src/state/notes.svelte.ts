let notes = $state.raw<readonly string[]>([]);

/** What the person should know about something that was done; stays until it is dismissed. */
export const told = {
  get notes(): readonly string[] {
    return notes;
  },
  dismiss(): void {
    notes = [];
  },
};

/** Shows notes, and hands on what came with them. */
export function tell<T extends { notes?: readonly string[] } | undefined>(answer: T): T {
  if (answer?.notes?.length) notes = [...notes, ...answer.notes];
  return answer;
}
