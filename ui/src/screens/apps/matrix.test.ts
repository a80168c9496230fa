import { describe, expect, it } from 'vitest';
import type { Msg } from '#ui/host';
import { answer, matrix, usedWords, viaGateway } from './matrix';

const span = (count: number, first: string, last: string): Msg<'SpanMsg'> => ({ count, first_at: first, last_at: last });
const use = (app: string, profile: string, more: Partial<Msg<'AppUseMsg'>> = {}): Msg<'AppUseMsg'> => ({
  app,
  profile,
  held: null,
  used: null,
  unseen: false,
  live: 0,
  ...more,
});

const USES = [
  use('codex', 'pg-prod', { held: span(3, '2026-11-01T00:00:00Z', '2026-11-20T00:00:00Z'), unseen: true }),
  use('codex', 'anthropic', {
    held: span(2, '2026-11-02T00:00:00Z', '2026-11-03T00:00:00Z'),
    used: span(40, '2026-11-02T00:00:00Z', '2026-11-21T00:00:00Z'),
  }),
  use('claude', 'anthropic', { held: span(1, '2026-10-01T00:00:00Z', '2026-10-01T00:00:00Z'), unseen: true, live: 1 }),
];

describe('matrix', () => {
  it('has a row an app and a column a profile: live ones first, then the last touched', () => {
    const table = matrix(USES);
    expect(table.apps).toEqual(['claude', 'codex']);
    expect(table.profiles).toEqual(['anthropic', 'pg-prod']);
    expect(table.cell('claude', 'pg-prod')).toBeUndefined();
    expect(table.cell('codex', 'anthropic')).toMatchObject({ held: 2, used: 40, unseen: false });
  });

  it('adds up', () => {
    const table = matrix(USES);
    expect(table.ofApp('codex')).toMatchObject({ held: 5, used: 40, unseen: true });
    expect(table.ofProfile('anthropic')).toMatchObject({ held: 3, used: 40, live: 1 });
    expect(table.total).toMatchObject({ held: 6, used: 40, live: 1, first: Date.UTC(2026, 9, 1), last: Date.UTC(2026, 10, 21) });
  });

  it('is narrowed by name, upper or lower case', () => {
    expect(matrix(USES, ' PG').apps).toEqual(['codex']);
    expect(matrix(USES, 'CLAUDE').profiles).toEqual(['anthropic']);
    expect(matrix(USES, 'none').total.held).toBe(0);
  });

  it('takes names that are not names of objects', () => {
    const table = matrix([use('__proto__', 'constructor', { live: 1 })]);
    expect(table.cell('__proto__', 'constructor')?.live).toBe(1);
    expect(table.cell('toString', 'constructor')).toBeUndefined();
  });
});

it('use that cannot be seen is never a zero', () => {
  const table = matrix(USES);
  const words = (app: string, profile: string) => usedWords(table.cell(app, profile) ?? table.total);
  expect(words('codex', 'pg-prod')).toBe('cannot be seen');
  expect(words('codex', 'anthropic')).toBe('40×');
  expect(usedWords(table.ofApp('codex'))).toBe('40× seen');
  const gateway = (app: string, profile: string) => viaGateway(table.cell(app, profile) ?? table.total);
  expect([gateway('codex', 'anthropic'), gateway('codex', 'pg-prod'), viaGateway(table.ofApp('codex'))]).toEqual([true, false, false]);
});

it('answers whether an app had a profile', () => {
  const table = matrix(USES);
  const ask = (app: string, profile: string) => answer(app, profile, table.cell(app, profile), 'in the last 7 days');
  expect(ask('codex', 'pg-prod')).toBe(
    'Yes: codex was given pg-prod 3 times in the last 7 days. What it did with it cannot be seen.',
  );
  expect(ask('codex', 'anthropic')).toBe('Yes: codex was given anthropic twice and used it 40 times in the last 7 days.');
  expect(ask('claude', 'pg-prod')).toBe('No: claude was not given pg-prod in the last 7 days.');
});
