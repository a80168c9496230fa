import { describe, expect, it } from 'vitest';
import type { Msg } from '#ui/host/contract';
import { bar, byEnd, draftOf, LONGEST_S, TIMES } from './grant';

const grant = (id: string, until: string, more: Partial<Msg<'GrantMsg'>> = {}): Msg<'GrantMsg'> => ({
  grant: id,
  span: 'standing',
  profile: 'pg',
  weakest: 'gateway',
  created_at: '2026-11-21T12:00:00Z',
  until,
  allowed: 0,
  ...more,
});

describe('a grant', () => {
  const one = grant('A', '2026-11-21T13:00:00Z');
  it('shrinks from its beginning to its end, and never beyond', () => {
    const left = (time: string) => bar(one, Date.parse(time)).left;
    expect([left('2026-11-21T11:00:00Z'), left('2026-11-21T12:45:00Z'), left('2026-11-21T14:00:00Z')]).toEqual([1, 0.25, 0]);
    expect(bar(grant('B', 'nonsense'), 0).left).toBe(0);
  });
  it('stands before those that end later', () => {
    const all = [grant('C', '2026-11-21T14:00:00Z'), grant('B', '2026-11-21T13:00:00Z'), one];
    expect(byEnd(all).map(({ grant }) => grant)).toEqual(['A', 'B', 'C']);
  });
  it('is edited as it is, but for its time', () => {
    const draft = draftOf({ ...one, program: '/usr/bin/codex', uses_left: 3 }, 'other');
    expect([draft.profile, draft.program, draft.uses, draft.weakest, draft.for_s]).toEqual(['pg', '/usr/bin/codex', 3, 'gateway', 3600]);
    expect(draftOf(undefined, 'other')).toMatchObject({ profile: 'other', program: null, project: null, weakest: 'env' });
  });
  it('is never offered for longer than can be given', () => {
    expect(Math.max(...TIMES.map(({ s }) => s))).toBe(LONGEST_S);
  });
});
