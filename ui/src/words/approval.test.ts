import { describe, expect, it } from 'vitest';
import type { Msg } from '#ui/host/contract';
import { before, chain, changed, choice, choices, said, standing } from './approval';

const wanted: Msg<'WantedMsg'> = {
  profile: 'pg-prod',
  issuer: 'static',
  reach: [],
  delivery: 'env',
  gives_away: '',
  ttl_s: 1800,
  confirm: false,
  allowed_before: 0,
  denied_before: 0,
};

const approval = (more: Partial<Msg<'ApprovalMsg'>> = {}): Msg<'ApprovalMsg'> => ({
  id: 'ABCDEFGH',
  kind: 'run',
  state: 'open',
  digest: '',
  question: '',
  app: 'codex',
  program: '/usr/bin/codex',
  verified: false,
  chain: [],
  project: '/home/ann/shop',
  said: ['command', 'reason'],
  wanted: [wanted],
  merged: 1,
  asked_at: '',
  changed_at: '',
  until: '',
  choices: ['project', 'once', 'run'],
  confirm: false,
  ...more,
});

describe('answers', () => {
  it('are offered narrowest first, and only those that make sense', () => {
    expect(choices(approval())).toEqual(['once', 'run', 'project']);
    expect(choices(approval({ choices: ['deny', 'once'] }))).toEqual(['once']);
    expect(choices(approval({ choices: [] }))).toEqual([]);
  });
  it('say on the button for how long they allow', () => {
    expect(choice(approval(), 'once')).toBe('Allow once, for 30 min at most');
    expect(choice(approval({ wanted: [wanted, { ...wanted, ttl_s: 7200 }] }), 'once')).toBe('Allow once, for 2 h at most');
    expect(choice(approval({ wanted: [] }), 'once')).toBe('Allow once');
    expect(choice(approval(), 'run')).toBe('Allow this run, for 24 h at most');
    expect(choice(approval(), 'project')).toBe('Allow this project for 1 h');
    expect(choice(approval({ kind: 'fence' }), 'once')).toBe('Allow what it asks for');
    expect(choice(approval({ kind: 'extend' }), 'run')).toBe('Let it keep them, for 24 h at most');
  });
});

describe('facts', () => {
  it('are marked where the requester alone says them', () => {
    expect([said(approval(), 'reason'), said(approval(), 'project')]).toEqual([true, false]);
  });
  it('name each process', () => {
    expect(chain(approval({ chain: [{ pid: 7, name: '' }, { pid: 1, name: 'init' }] }))).toEqual([
      { pid: 7, name: '?' },
      { pid: 1, name: 'init' },
    ]);
  });
  it('say what was decided before', () => {
    const of = (yes: number, no: number) => before({ ...wanted, allowed_before: yes, denied_before: no });
    expect(of(0, 0)).toMatch(/^Never asked/u);
    expect(of(1, 0)).toBe('Allowed once before, never denied');
    expect(of(0, 3)).toBe('Denied 3 times before, never allowed');
    expect(of(2, 1)).toBe('Allowed 2 times before, denied once');
  });
  it('tell the lines of a difference apart', () => {
    expect(['+a', '-b', ' c', ''].map(changed)).toEqual([
      { way: 'added', text: 'a' },
      { way: 'removed', text: 'b' },
      { way: 'kept', text: 'c' },
      { way: 'kept', text: '' },
    ]);
  });
  it('have a word for each state', () => {
    const words = (['open', 'allowed', 'denied', 'unanswered', 'withdrawn'] as const).map((state) => standing(state).word);
    expect(new Set(words).size).toBe(5);
  });
});
