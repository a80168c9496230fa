// Runs in words.

import type { Msg } from '#ui/host/contract';
import type { Lean } from '#ui/parts/State.svelte';
import { at } from './time';

type PastRun = Msg<'PastRunMsg'>;

const SIGNALS: Readonly<Record<number, string>> = {
  1: 'SIGHUP',
  2: 'SIGINT',
  3: 'SIGQUIT',
  4: 'SIGILL',
  6: 'SIGABRT',
  7: 'SIGBUS',
  8: 'SIGFPE',
  9: 'SIGKILL',
  11: 'SIGSEGV',
  13: 'SIGPIPE',
  14: 'SIGALRM',
  15: 'SIGTERM',
};

/** How a run ended. */
export function exitWords(run: Pick<PastRun, 'exit' | 'signal' | 'code'>): { lean: Lean; word: string; title: string } {
  if (run.code) return { lean: 'bad', word: 'did not start', title: run.code };
  if (typeof run.signal === 'number') {
    return { lean: 'warn', word: SIGNALS[run.signal] ?? `signal ${run.signal}`, title: `Ended by signal ${run.signal}` };
  }
  if (run.exit === 0) return { lean: 'good', word: 'exit 0', title: 'Ended well' };
  if (typeof run.exit === 'number') return { lean: 'bad', word: `exit ${run.exit}`, title: `Ended with exit code ${run.exit}` };
  return { lean: 'idle', word: 'unknown', title: 'How it ended was not seen' };
}

/** Calls that a live run made through the gateway, in words; `unseen` tells that it holds something whose use cannot be seen. */
export function runUses(leases: readonly Msg<'LeaseMsg'>[]): { word: string; unseen: boolean; title: string } {
  const seen = leases.filter((lease) => typeof lease.uses === 'number');
  const uses = seen.reduce((sum, lease) => sum + (lease.uses ?? 0), 0);
  const unseen = seen.length < leases.length;
  if (leases.length === 0) return { word: '–', unseen: false, title: 'It holds nothing' };
  if (seen.length === 0) return { word: 'unseen', unseen, title: 'Uses of a variable or a file cannot be seen' };
  return {
    word: uses.toLocaleString('en-GB'),
    unseen,
    title: unseen ? 'Calls through the gateway; uses of a variable or a file cannot be seen' : 'Calls through the gateway',
  };
}

/** How long it took, in milliseconds; undefined where the log does not tell its start. */
export function duration(run: Pick<PastRun, 'started_at' | 'ended_at'>): number | undefined {
  return run.started_at ? Math.max(0, at(run.ended_at) - at(run.started_at)) : undefined;
}

/**
 * Puts a fresh first page in front of the pages that were read before: what ended meanwhile comes on top, nothing stands there
 * twice. Where the fresh page does not reach what was read before, that is dropped, so that nothing is missing in between.
 */
export function withFresh(fresh: { runs: readonly PastRun[]; more: boolean }, before: readonly PastRun[], moreBefore: boolean): { runs: PastRun[]; more: boolean } {
  const last = fresh.runs.at(-1);
  const first = before[0];
  if (!last || !first || !fresh.more || last.seq > first.seq) return { runs: [...fresh.runs], more: fresh.more };
  const older = before.filter((run) => run.seq < last.seq);
  return { runs: [...fresh.runs, ...older], more: older.length > 0 ? moreBefore : fresh.more };
}
