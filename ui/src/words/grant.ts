// What is allowed without asking, in words. No DOM.

import type { Msg } from '#ui/host/contract';
import type { Bar } from './outlook';
import { at } from './time';

type Grant = Msg<'GrantMsg'>;

/** The longest time for which a grant can be given, in seconds. */
export const LONGEST_S = 86_400;

/** Times that the editors offer, in seconds. */
export const TIMES: readonly { s: number; word: string }[] = [
  { s: 600, word: '10 min' },
  { s: 3600, word: '1 h' },
  { s: 4 * 3600, word: '4 h' },
  { s: 8 * 3600, word: '8 h' },
  { s: LONGEST_S, word: '24 h' },
];

/** How long a grant holds. */
export const SPANS: Readonly<Record<Msg<'GrantSpan'>, string>> = {
  once: 'for one delivery',
  run: 'for one run',
  standing: 'until its time is up',
};

/** What the weakest delivery of a grant lets through. */
export const WEAKEST: Readonly<Record<Msg<'DeliveryMode'>, string>> = {
  env: 'in any way, a variable included',
  file: 'by a file or the gateway',
  gateway: 'by the gateway alone',
};

/** The time that is left, as the bar of a lease. */
export function bar(grant: Grant, now: number): Bar {
  const [from, to] = [at(grant.created_at), at(grant.until)];
  return { left: to > from ? Math.min(1, Math.max(0, (to - now) / (to - from))) : 0, limitEnds: true };
}

/** Grants, what ends first before the others. */
export function byEnd(grants: readonly Grant[]): Grant[] {
  return [...grants].sort((a, b) => at(a.until) - at(b.until) || a.grant.localeCompare(b.grant));
}

/** A new grant, or one as it is stored, as the editor holds it. The time begins anew. */
export function draftOf(grant: Grant | undefined, profile: string): Msg<'GrantDraft'> {
  return {
    profile: grant?.profile ?? profile,
    program: grant?.program ?? null,
    script: grant?.script ?? null,
    launcher: grant?.launcher ?? null,
    project: grant?.project ?? null,
    weakest: grant?.weakest ?? 'env',
    for_s: 3600,
    uses: grant?.uses_left ?? null,
  };
}
