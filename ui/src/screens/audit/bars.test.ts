import { describe, expect, it } from 'vitest';
import { barWords, brushed, columns, extent, spoken } from './bars';

const bar = (at: string, ok = 0, refused = 0, failed = 0) => ({ at, ok, refused, failed });
const H = 3600;
const T = Date.UTC(2026, 10, 21, 10) / 1000;

it('bars lie over each other, the failed ones at the bottom', () => {
  expect(columns([bar('2026-11-21T10:00:00Z', 5, 2, 1), bar('not a time', 9)])).toEqual([[T], [8], [3], [1]]);
});

describe('the range', () => {
  const bars = [bar('2026-11-21T10:00:00Z', 1), bar('2026-11-21T11:00:00Z', 1)];
  const now = (T + 2.5 * H) * 1000;

  it('is what is asked for, empty time included', () => {
    expect(extent(bars, H, (T - 10 * H) * 1000, undefined, now)).toEqual([T - 10 * H, T + 2.5 * H]);
    expect(extent(bars, H, (T - H) * 1000, (T + H) * 1000, now)).toEqual([T - H, T + H]);
  });

  it('is what there is where nothing is asked', () => {
    const long = [bar('2026-11-19T10:00:00Z', 1), ...bars];
    expect(extent(long, H, undefined, undefined, now)).toEqual([T - 48 * H, T + 2.5 * H]);
  });

  it('has room for more than the bars of a young log', () => {
    expect(extent(bars, H, undefined, undefined, now)).toEqual([T - 21.5 * H, T + 2.5 * H]);
    expect(extent([], H, undefined, undefined, now)).toEqual([T - 21.5 * H, T + 2.5 * H]);
  });

  it('is never empty or turned round', () => {
    for (const [since, until] of [[now, now], [now + 1, now], [undefined, undefined]] as const) {
      const [from, to] = extent([], H, since, until, now);
      expect(to).toBeGreaterThan(from);
    }
  });
});

it('a brush covers whole hours', () => {
  expect(brushed(T + 60, T + 120)).toEqual({ since: T * 1000, until: (T + H) * 1000 });
  expect(brushed(T + 2 * H, T + 60)).toEqual({ since: T * 1000, until: (T + 2 * H) * 1000 });
  expect(brushed(T, T)).toBeUndefined();
  expect(brushed(NaN, T)).toBeUndefined();
});

it('the chart has words', () => {
  const bars = [bar('2026-11-21T10:00:00Z', 1000, 2, 1), bar('2026-11-21T11:00:00Z', 1)];
  expect(spoken({ bars, total: 1004 }, () => '21 Nov')).toBe('Entries over time: 1,001 ok, 2 refused, 1 failed; most on 21 Nov');
  expect(spoken({ bars: [], total: 0 }, () => '')).toBe('No entries in this time');
});

it('a bar says when it begins and ends', () => {
  const at = new Date(2026, 10, 3, 22).getTime();
  const now = at + 1;
  expect(barWords(at, at + 3_600_000, now)).toBe('3 Nov 22:00–23:00');
  expect(barWords(at, at + 18 * 3_600_000, now)).toBe('3 Nov 22:00 – 4 Nov 16:00');
});
