// The last verification of the log, kept while the screens change.

import { call, type Msg } from '#ui/host';
import { clock } from '#ui/state/clock.svelte';
import { Loaded } from '#ui/state/loaded.svelte';

/** What a verification found. */
export interface Verification {
  answer: Msg<'VerifyAnswer'>;
  /** Every page of the file was checked too. */
  pages: boolean;
  /** When it was verified, on the broker's clock, in milliseconds since 1970. */
  at: number;
  /** When the entry was written that the anchor names. */
  anchored: number | undefined;
}

/** The next verification checks the file too. */
let file = false;

/** The last verification of the whole log. */
export const verification = new Loaded<Verification>(async () => {
  const pages = file;
  file = false;
  const answer = await call('audit_verify', { pages });
  const at = clock.read();
  const seq = answer.anchor.seq;
  return { answer, pages, at, anchored: seq ? await written(seq) : undefined };
});

/**
 * Verifies the whole log; the last result stays until there is another one. `pages` checks every page of the file too, for which
 * commits wait. What that finds wrong is remembered by the broker, and a check without it says so as well.
 */
export function verify({ pages = false } = {}): Promise<void> {
  file ||= pages;
  return verification.reload();
}

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
