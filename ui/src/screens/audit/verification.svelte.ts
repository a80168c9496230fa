// The last verification of the log, kept while the screens change.

import { call, type Msg } from '#ui/host';
import { clock } from '#ui/state/clock.svelte';
import { Loaded } from '#ui/state/loaded.svelte';

/** What a verification found. */
export interface Verification {
  answer: Msg<'VerifyAnswer'>;
  /** When it was verified, on the broker's clock, in milliseconds since 1970. */
  at: number;
  /** When the entry was written that the anchor names. */
  anchored: number | undefined;
}

/** Verifies the whole log; the last result stays until there is another one. */
export const verification = new Loaded<Verification>(async () => {
  const answer = await call('audit_verify');
  const at = clock.read();
  const seq = answer.anchor.seq;
  return { answer, at, anchored: seq ? await written(seq) : undefined };
});

/** When an entry was written; undefined where it cannot be read, which the verification tells by itself. */
async function written(seq: number): Promise<number | undefined> {
  try {
    const { entry } = await call('audit_entry', { seq });
    const time = Date.parse(String((entry as { at?: unknown } | null)?.at));
    return Number.isFinite(time) ? time : undefined;
  } catch {
    return undefined;
  }
}
