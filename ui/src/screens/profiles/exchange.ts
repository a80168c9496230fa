// The state of a profile and its last exchange in words. Pure.

import type { Msg } from '#ui/host';
import type { Lean } from '#ui/parts/State.svelte';
import { count } from '#ui/words/text';
import { ago, span } from '#ui/words/time';

type Profile = Pick<Msg<'ProfileMsg'>, 'held' | 'last_exchange' | 'leases'>;

/** The state of a profile in one word: what matters first. */
export function standing(profile: Profile, now: number): { lean: Lean; word: string } {
  if (profile.last_exchange && !profile.last_exchange.ok) return { lean: 'bad', word: 'failed' };
  if (profile.leases > 0) return { lean: 'good', word: count(profile.leases, 'lease') };
  const ends = Date.parse(profile.held?.expires_at ?? '');
  if (profile.held && !(ends <= now)) return { lean: 'good', word: 'held' };
  return { lean: 'idle', word: 'idle' };
}

/** The last exchange in a sentence. */
export function exchangeWords(last: Msg<'ExchangeMsg'> | null | undefined, now: number): string {
  if (!last) return 'None since the broker started';
  const when = ago(Date.parse(last.at), now);
  if (!last.ok) return `Failed ${when}${last.code ? `: ${last.code}` : ''}`;
  const life = last.expires_in_s == null ? 'that does not end by itself' : `that lived ${span(last.expires_in_s * 1000)}`;
  return `Made a credential ${life}, ${when}`;
}

/** The credential that the broker holds, in a sentence. */
export function heldWords(held: Msg<'HeldMsg'> | null | undefined, now: number): string {
  if (!held) return 'None at the moment';
  const since = `received ${ago(Date.parse(held.received_at), now)}`;
  if (!held.expires_at) return `One that does not end by itself, ${since}`;
  const left = Date.parse(held.expires_at) - now;
  if (left <= 0) return `One that has ended, ${since}`;
  const renew = Date.parse(held.renew_at ?? '') - now;
  const renewed = Number.isFinite(renew) ? (renew > 0 ? `, renewed in ${span(renew)} if it is in use` : ', renewed at its next use') : '';
  return `One with ${span(left)} left${renewed}`;
}

/** Names of facts as people read them. */
export function factName(fact: string): string {
  const known: Record<string, string> = {
    request_id: 'Request ID',
    assertion_subject: 'Subject of the assertion',
    assertion_issuer: 'Issuer of the assertion',
    assertion_audience: 'Audience of the assertion',
  };
  const words = fact.replaceAll('_', ' ');
  return known[fact] ?? words.charAt(0).toUpperCase() + words.slice(1);
}
