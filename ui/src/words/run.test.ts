import { expect, it } from 'vitest';
import type { Msg } from '#ui/host/contract';
import { duration, exitWords, runUses, withFresh } from './run';

const run = (seq: number): Msg<'PastRunMsg'> => ({
  run: `r-${seq}`,
  app: 'a',
  app_verified: true,
  project: '/p',
  started_at: null,
  ended_at: '2026-11-21T12:00:00Z',
  exit: 0,
  signal: null,
  code: null,
  profiles: [],
  uses: null,
  seq,
});
const seqs = (page: { runs: Msg<'PastRunMsg'>[] }): number[] => page.runs.map((r) => r.seq);

it('says how a run ended', () => {
  const words = [
    { exit: 0 },
    { exit: 3 },
    { exit: null, signal: 15 },
    { exit: null, signal: 40 },
    { exit: null },
    { exit: null, code: 'run.not_found' },
  ].map((end) => exitWords({ signal: null, code: null, ...end }).word);
  expect(words).toEqual(['exit 0', 'exit 3', 'SIGTERM', 'signal 40', 'unknown', 'did not start']);
});

it('knows no duration without a start', () => {
  expect(duration(run(1))).toBeUndefined();
  expect(duration({ ...run(1), started_at: '2026-11-21T11:59:00Z' })).toBe(60_000);
});

it('puts what ended meanwhile on top, once', () => {
  const before = [9, 8, 7, 6, 5].map(run);
  expect(seqs(withFresh({ runs: [12, 9, 8].map(run), more: true }, before, true))).toEqual([12, 9, 8, 7, 6, 5]);
  expect(withFresh({ runs: [12, 9, 8].map(run), more: true }, before, false).more).toBe(false);
});

it('drops what was read before where something may lie in between', () => {
  const page = withFresh({ runs: [30, 29].map(run), more: true }, [9, 8].map(run), false);
  expect([seqs(page), page.more]).toEqual([[30, 29], true]);
});

it('holds only the fresh page where that is all there is', () => {
  expect(seqs(withFresh({ runs: [2, 1].map(run), more: false }, [9, 8].map(run), true))).toEqual([2, 1]);
  expect(seqs(withFresh({ runs: [], more: false }, [9].map(run), true))).toEqual([]);
});

it('counts calls through the gateway, and never shows a zero for what cannot be seen', () => {
  const lease = (uses: number | null) => ({ uses }) as Msg<'LeaseMsg'>;
  expect(runUses([lease(1200), lease(34)])).toMatchObject({ word: '1,234', unseen: false });
  expect(runUses([lease(0)])).toMatchObject({ word: '0', unseen: false });
  expect(runUses([lease(3), lease(null)])).toMatchObject({ word: '3', unseen: true });
  expect(runUses([lease(null)])).toMatchObject({ word: 'unseen', unseen: true });
  expect(runUses([])).toMatchObject({ word: '–', unseen: false });
});
