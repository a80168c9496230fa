// What happens to a lease next, in words and as a place on a bar.

import type { Msg } from '#ui/host/contract';
import { visible } from './text';
import { at, coarseSpan, short, span } from './time';

type Lease = Msg<'LeaseMsg'>;

/** A lease with the run that holds it. */
export interface Held {
  run: Msg<'RunMsg'>;
  lease: Lease;
}

/** Ends within this time call for attention. */
export const SOON_MS = 10 * 60 * 1000;

const LIVE = new Set(['live', 'renew_failed', 'lapsed']);

/** The lease is held; the others are over. */
export function isLive(lease: Lease): boolean {
  return LIVE.has(lease.state);
}

/** The lease ends what it holds: its credential does not end sooner, if at all. */
function endsByLimit(lease: Lease): boolean {
  return at(lease.limit_at) - at(lease.expires_at) < 1000;
}

/** When the lease ends, or ended, the program keeps what was put into its variable, and it may be good for longer. */
export function stays(lease: Lease, now: number): boolean {
  if (lease.delivery !== 'env' || lease.state === 'released') return false;
  return isLive(lease) ? lease.outlook.kind === 'ends' && endsByLimit(lease) : endsByLimit(lease) || at(lease.expires_at) > now;
}

/** When the time that is shown as left is up. */
function end(lease: Lease): number {
  return lease.outlook.kind === 'lapsed' ? -Infinity : at(lease.expires_at);
}

/** The leases of live runs, what ends first before the others, apart from those that are over, last ended first. */
export function heldLeases(runs: readonly Msg<'RunMsg'>[]): { live: Held[]; over: Held[] } {
  const all = runs.flatMap((run) => run.leases.map((lease) => ({ run, lease })));
  const byName = (a: Held, b: Held): number =>
    a.lease.profile.localeCompare(b.lease.profile) || a.lease.lease.localeCompare(b.lease.lease);
  return {
    live: all
      .filter(({ lease }) => isLive(lease))
      .sort((a, b) => order(end(a.lease), end(b.lease)) || byName(a, b)),
    over: all
      .filter(({ lease }) => !isLive(lease))
      .sort((a, b) => order(at(b.lease.outlook.at), at(a.lease.outlook.at)) || byName(a, b)),
  };
}

function order(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}

/** Where things lie on the bar of a lease, as parts of its whole length; the life that is left begins at the start. */
export interface Bar {
  /** Life that is left, 0 to 1. */
  left: number;
  /** Where the bar has shrunk to when the credential is renewed; absent where it is not. */
  renew?: number;
  /** The limit of the lease ends the bar; else it lies beyond the end of this credential. */
  limitEnds: boolean;
}

/** The bar of a lease at a moment of the broker's clock: the life of its credential, and through the gateway that of the lease. */
export function bar(lease: Lease, now: number): Bar {
  const from = at(lease.delivery === 'gateway' ? lease.issued_at : lease.received_at);
  const to = at(lease.expires_at);
  const part = (time: number): number => (to > from ? Math.min(1, Math.max(0, (to - time) / (to - from))) : 0);
  return {
    left: part(now),
    ...(lease.renew_at ? { renew: part(at(lease.renew_at)) } : {}),
    limitEnds: endsByLimit(lease),
  };
}

/** The state of a lease: which way it leans and its word. */
export function leaseState(lease: Lease, now: number): { lean: 'good' | 'warn' | 'bad' | 'idle'; word: string } {
  if (!isLive(lease)) return { lean: 'idle', word: stays(lease, now) ? 'Stays in the process' : (ENDED[lease.state] ?? lease.state) };
  switch (lease.outlook.kind) {
    case 'lapsed':
      return { lean: 'bad', word: 'Without credential' };
    case 'fails':
      return { lean: 'bad', word: 'Renewal fails' };
    case 'renews':
      return { lean: 'good', word: 'Renewed by itself' };
    default:
      return at(lease.outlook.at) - now < SOON_MS
        ? { lean: 'warn', word: stays(lease, now) ? 'Lease ends soon' : 'Ends soon' }
        : { lean: 'idle', word: stays(lease, now) ? 'Lease ends' : 'Ends by itself' };
  }
}

const ENDED: Readonly<Record<string, string>> = {
  expired: 'Ended',
  revoked: 'Taken back',
  released: 'Given back',
};

/** A name of the broker inside a sentence of ours: isolated, unseen characters made visible. */
function name(text: string): string {
  return `\u2068${visible(text)}\u2069`;
}

/**
 * What happens next, in one sentence: `Claude Code loses bedrock in 12 min: a variable cannot be renewed`. `app` is the name to
 * show. With `coarse` it changes once a minute at most, for voices.
 */
export function outlookWords(lease: Lease, app: string, now: number, coarse = false): string {
  const { kind, why, next_try_at } = lease.outlook;
  const time = at(lease.outlook.at);
  const said = coarse ? coarseSpan : span;
  const who = name(app);
  const what = name(lease.profile);
  const because = why ? `: ${visible(why)}` : '';
  const again = next_try_at && !coarse ? `; next try ${tryWords(at(next_try_at) - now)}` : '';
  if (stays(lease, now)) {
    const when = !isLive(lease) ? `ended ${short(now - time)} ago` : time <= now ? 'is ending' : `ends in ${said(time - now)}`;
    return `the lease of ${what} ${when}; ${who} keeps the value${because}`;
  }
  if (!isLive(lease)) return `${who} lost ${what} ${short(now - time)} ago${because}`;
  if (lease.delivery === 'gateway' && kind === 'renews') {
    const limit = at(lease.limit_at);
    const end = limit <= now ? 'is ending at its limit' : `ends at its limit in ${said(limit - now)}`;
    return `${who} calls with ${what} through the gateway; it is renewed in the background and ${end}`;
  }
  switch (kind) {
    case 'renews':
      return time <= now ? `${what} is being renewed for ${who}` : `${what} is renewed for ${who} in ${said(time - now)}${because}`;
    case 'lapsed':
      return `${who} has been without ${what} for ${said(now - time)}${because}${again}`;
    default:
      return time <= now ? `${who} is losing ${what}${because}${again}` : `${who} loses ${what} in ${said(time - now)}${because}${again}`;
  }
}

function tryWords(ms: number): string {
  return ms < 1000 ? 'at once' : `in ${span(ms)}`;
}

/** What Keyward saw of the use of a lease. */
export function useWords(lease: Lease, now: number): string {
  if (lease.uses === undefined || lease.uses === null) return 'use cannot be seen';
  if (lease.uses === 0) return 'not used yet';
  const times = lease.uses === 1 ? 'used once' : `used ${lease.uses.toLocaleString('en-GB')} times`;
  return lease.last_use_at ? `${times}, last ${short(now - at(lease.last_use_at))} ago` : times;
}

/** What taking these leases back does at once, in sentences: what is held by the gateway ends, what was handed over may stay. */
export function takenWords(leases: readonly Lease[]): string {
  const by = (mode: Msg<'DeliveryMode'>): boolean => leases.some((lease) => lease.delivery === mode);
  return [
    ...(by('gateway') ? ['Through the gateway nothing goes from that moment on, and calls under way are cut.'] : []),
    ...(by('file') ? ['A file is removed; what was read from it before stays with the program, for as long as it is good.'] : []),
    ...(by('env') ? ['What is in a variable stays there, for as long as the credential is good.'] : []),
  ].join(' ');
}

/** How a delivery is called, and what it gives away. */
export const DELIVERY: Readonly<Record<Msg<'DeliveryMode'>, { word: string; gives: string }>> = {
  env: {
    word: 'variable',
    gives:
      'The program and all it starts hold the credential itself. Every program of yours can read it, it is not renewed, and it cannot be taken back before it ends.',
  },
  file: {
    word: 'file',
    gives:
      'The program and every program of yours can read the credential while the run lives. It is renewed in place and removed at the end; what was read before cannot be taken back.',
  },
  gateway: {
    word: 'gateway',
    gives:
      'The program and all it starts hold a token for calls through Keyward by them alone. It ends with the run; while the run lives they can make the calls that the gateway allows, and each is recorded. Taken back, it opens nothing from that moment on.',
  },
};
