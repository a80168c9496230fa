import { expect, it } from 'vitest';
import { ago, coarseSpan, hours, short, span } from './time';

const S = 1000;
const M = 60 * S;
const H = 60 * M;
const D = 24 * H;

it('rounds time left down, to the second below ten minutes', () => {
  const table: [number, string][] = [
    [-5, '0 s'],
    [999, '0 s'],
    [59_999, '59 s'],
    [M, '1 min 00 s'],
    [9 * M + 59 * S + 999, '9 min 59 s'],
    [10 * M, '10 min'],
    [H - 1, '59 min'],
    [H, '1 h'],
    [H + 12 * M + 59 * S, '1 h 12 min'],
    [D - 1, '23 h 59 min'],
    [D, '24 h'],
    [2 * D, '2 d'],
    [3 * D + 4 * H, '3 d 4 h'],
    [NaN, 'unknown'],
  ];
  for (const [ms, words] of table) expect(span(ms)).toBe(words);
});

it('says how long ago, beyond a week the date', () => {
  const now = Date.parse('2026-11-21T12:00:00Z');
  expect(ago(now - 2 * S, now)).toBe('just now');
  expect(ago(now + 2 * S, now)).toBe('just now');
  expect(ago(now - 61 * S, now)).toBe('1 min ago');
  expect(ago(now - 26 * H, now)).toBe('1 d ago');
  expect(ago(now + 2 * H, now)).toBe('in 2 h');
  expect(ago(now - 18 * D, now)).toBe('3 Nov');
  expect(ago(now - 400 * D, now)).toMatch(/^\d+ Oct 2025$/);
  expect(ago(NaN, now)).toBe('unknown');
});

it('names the day of a time of day that is not today', () => {
  const day = (n: number): number => new Date(2026, 10, n, 14, 34).getTime();
  expect([21, 22, 20, 25].map((n) => hours(day(n), day(21)))).toEqual(['14:34', 'tomorrow 14:34', 'yesterday 14:34', '25 Nov 14:34']);
  expect(hours(NaN, day(21))).toBe('unknown');
});

it('has one unit in short and changes by the minute for voices', () => {
  expect([short(0), short(90 * S), short(30 * H)]).toEqual(['0 s', '1 min', '1 d']);
  expect([coarseSpan(59 * S), coarseSpan(M), coarseSpan(119 * S), coarseSpan(3 * H)]).toEqual([
    'less than a minute',
    '1 minute',
    '1 minute',
    '3 hours',
  ]);
});
