import { describe, expect, it } from 'vitest';
import {
  activePreset,
  auditQuery,
  counted,
  fromInput,
  fromQuery,
  isEmpty,
  presetRange,
  rangeWords,
  same,
  searchText,
  summaryQuery,
  toInput,
  toQuery,
  type Filters,
} from './filters';

const NOW = Date.UTC(2026, 10, 21, 10, 20, 30);
const HOUR = 3_600_000;

describe('filters', () => {
  const all: Filters = {
    app: 'codex',
    profile: 'pg-prod',
    project: '/home/ann/a b&c',
    kind: 'lease',
    outcome: 'ok',
    run: 'r1',
    text: 'x=y&z',
    since: NOW - HOUR,
    until: NOW,
  };

  it('survive the way through the address', () => {
    const query = Object.fromEntries(new URLSearchParams(Object.entries(toQuery(all)).flatMap(([k, v]) => (v ? [[k, v]] : []))));
    expect(fromQuery(query, NOW)).toEqual(all);
    expect(same(fromQuery(query, NOW), all)).toBe(true);
  });

  it('go to the broker under its names', () => {
    expect(auditQuery(all)).toEqual({
      app: 'codex',
      profile: 'pg-prod',
      project: '/home/ann/a b&c',
      kind: 'lease',
      outcome: 'ok',
      run: 'r1',
      text: 'x=y&z',
      since: new Date(NOW - HOUR).toISOString(),
      until: new Date(NOW).toISOString(),
    });
    expect(Object.keys(summaryQuery(all, 60))).not.toContain('text');
    expect(Object.keys(summaryQuery(all))).not.toContain('run');
    expect(Object.keys(summaryQuery(all))).not.toContain('bars');
  });

  it('that cannot be read are left out', () => {
    expect(fromQuery({ since: 'yesterday', until: '', range: '99d', app: '', evil: 'x' }, NOW)).toEqual({});
    expect(isEmpty(fromQuery({ evil: 'x' }, NOW))).toBe(true);
  });

  it('are counted exactly only where the summary can', () => {
    expect(counted({ app: 'x', ...presetRange('7d', NOW) })).toBe(true);
    expect(counted({ text: 'x' })).toBe(false);
    expect(counted({ run: 'x' })).toBe(false);
    expect(counted({ since: NOW })).toBe(false);
  });
});

describe('presets', () => {
  it('begin at a whole hour and have no end', () => {
    for (const preset of ['7d', '30d'] as const) {
      const range = presetRange(preset, NOW);
      expect((range.since ?? 1) % HOUR).toBe(0);
      expect(range.until).toBeUndefined();
    }
    expect(presetRange('7d', NOW).since).toBe(Date.UTC(2026, 10, 14, 10));
    const today = presetRange('today', NOW).since ?? 0;
    expect([new Date(today).getHours(), new Date(today).getMinutes()]).toEqual([0, 0]);
    expect(NOW - today).toBeLessThan(25 * HOUR);
  });

  it('are kept in the address by name, so that a link made today means the same tomorrow', () => {
    const query = toQuery(presetRange('7d', NOW));
    expect(query).toMatchObject({ range: '7d' });
    expect(query['since']).toBeUndefined();
    expect(fromQuery({ range: '7d' }, NOW + 24 * HOUR).since).toBe(Date.UTC(2026, 10, 15, 10));
  });

  it('know which one is in force', () => {
    expect(activePreset({})).toBe('all');
    expect(activePreset(presetRange('all', NOW))).toBe('all');
    expect(activePreset(presetRange('today', NOW))).toBe('today');
    expect(activePreset({ since: NOW })).toBeUndefined();
  });
});

it('a search is cut to what the broker takes, at a character', () => {
  expect(searchText('  pg  ')).toBe('pg');
  expect(searchText('   ')).toBeUndefined();
  const cut = searchText('\u{1F600}'.repeat(60)) ?? '';
  expect(new TextEncoder().encode(cut).length).toBe(200);
});

it('times go into inputs and back, to the minute', () => {
  expect(fromInput(toInput(NOW))).toBe(NOW - 30_000);
  expect(toInput(undefined)).toBe('');
  expect(fromInput('')).toBeUndefined();
  expect(fromInput('nonsense')).toBeUndefined();
});

it('ranges have words', () => {
  expect(rangeWords({}, NOW)).toBe('in the whole log');
  expect(rangeWords(presetRange('7d', NOW), NOW)).toBe('in the last 7 days');
  expect(rangeWords({ since: NOW - HOUR, until: NOW }, NOW)).toMatch(/^from 21 Nov .* to 21 Nov /);
});
