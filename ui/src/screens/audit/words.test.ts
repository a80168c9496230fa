import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readEntry } from './entry';
import { REFUSALS } from './refusals';
import { FAMILIES, PROBLEM_KINDS, WORDS, anchorWords, outcomeWord, plain, say, title } from './words';

const RULES = readFileSync(new URL('../../../../crates/keyward-core/src/audit.rs', import.meta.url), 'utf8');

/** The names of a list in the broker's source: `named! { … Kind { … Variant "name" … } }`. */
function named(type: string): string[] {
  const body = new RegExp(`named! \\{[^{}]*?\\n    ${type} \\{(.*?)\\n    \\}`, 's').exec(RULES)?.[1] ?? '';
  return [...body.matchAll(/^ +[A-Z]\w* "([a-z_.]+)"$/gm)].map((found) => found[1] ?? '');
}

const entry = (kind: string, more: Record<string, unknown> = {}) =>
  readEntry({ seq: 1, entry: { at: '2026-11-21T03:04:05Z', kind, outcome: 'ok', detail: {}, ...more }, prev: '', mac: '' });

describe('the table of kinds', () => {
  const kinds = named('Kind');

  it('has exactly the kinds of the broker', () => {
    expect(kinds.length).toBeGreaterThan(35);
    expect(Object.keys(WORDS).sort()).toEqual([...kinds].sort());
  });

  it('names each family once', () => {
    expect(Object.keys(FAMILIES).sort()).toEqual([...new Set(kinds.map((kind) => kind.split('.')[0]))].sort());
  });

  it.each(named('Kind'))('says %s in a sentence, whatever is missing', (kind) => {
    for (const outcome of ['ok', 'refused', 'failed', '']) {
      const words = plain(say(entry(kind, { outcome })));
      expect(words).toMatch(/^[A-Z].{7}/u);
      expect(words).not.toMatch(/undefined|null|NaN|\[object/u);
    }
    expect(title(kind)).not.toBe(kind);
  });

  it('says why a program was not verified as the broker does', () => {
    const started = (detail: Record<string, unknown>) => plain(say(entry('run.started', { app: { name: 'true' }, detail })));
    const why = 'the program could not be read after exec';
    expect(started({ unverified: why })).toContain(`started, unverified: ${why}`);
    expect(started({})).not.toContain('unverified');
  });

  it.each(named('Kind'))('says %s in a sentence, whatever its fields hold', (kind) => {
    const hostile = ['', 0, -1, 1e300, true, null, [], [1, null, {}], {}, '\u202e<b>'];
    for (const value of hostile) {
      const fields = ['delivery', 'profiles', 'refused', 'code', 'count', 'seconds', 'exit', 'signal', 'slot', 'by', 'runs', 'file', 'remains', 'reason', 'why', 'secret', 'generation', 'expires_in_s', 'scope', 'issuer', 'launcher', 'version', 'uses', 'process', 'host', 'what'];
      const detail = Object.fromEntries(fields.map((field) => [field, value]));
      expect(plain(say(entry(kind, { detail, app: value, profile: value, project: value, peer: value })))).not.toMatch(
        /undefined|NaN|\[object/u,
      );
    }
  });
});

describe('sentences', () => {
  const words = (kind: string, more: Record<string, unknown>) => plain(say(entry(kind, more)), '/home/ann/.local/share/keyward');

  it.each([
    [
      'credential.delivered',
      { app: 'codex', profile: 'pg-prod', project: '/home/ann/work/shop', detail: { delivery: 'env' } },
      'codex was given pg-prod · env · ~/work/shop',
    ],
    ['run.ended', { app: 'claude', detail: { seconds: 3700, exit: 0 } }, 'claude ended after 1 h 1 min'],
    ['run.ended', { app: 'claude', detail: { seconds: 5, signal: 9 } }, 'claude was ended by signal 9 after 5 s'],
    ['run.ended', { app: 'x', detail: { code: 'run.not_executable' } }, 'x did not start: run.not_executable'],
    [
      'request.refused',
      { outcome: 'refused', detail: { refused: [{ exe: '/usr/bin/node', reason: 'operator.needed', count: 3 }] } },
      '3 requests refused: operator.needed · asked by node',
    ],
    ['vault.locked', { detail: { runs: 2 } }, 'The vault was locked · taken back from 2 runs'],
    ['vault.unlocked', { detail: { by: 'recovery' } }, 'The vault was unlocked with the recovery key'],
    [
      'credential.used',
      { app: 'claude', profile: 'bedrock', peer: { exe: '/usr/bin/node' }, detail: { count: 1, process: 'exact', uses: [{ method: 'POST', host: 'api.anthropic.com', path: '/v1/messages', status: 200 }] } },
      'claude made a call with bedrock · POST api.anthropic.com/v1/messages · 200 · by node',
    ],
    [
      'credential.used',
      { app: 'claude', profile: 'p', peer: { exe: '/usr/bin/claude' }, detail: { count: 12, process: 'one of 2', uses: [{ host: 'a.example' }, { host: 'a.example' }] } },
      'claude made 12 calls with p · a.example',
    ],
    ['credential.used', { app: 'x', profile: 'p', detail: { count: 1, process: 'unknown' } }, 'x made a call with p · by a process that is not known'],
    [
      'credential.use_ended',
      { app: 'x', profile: 'p', detail: { count: 1, uses: [{ method: 'POST', host: 'h', path: '/s', status: 200 }] } },
      'A call of x with p ended · POST h/s · 200',
    ],
    ['gateway.opened', { app: 'x', profile: 'p', detail: { host: 'h' } }, 'x may call with p through the gateway · h'],
    [
      'gateway.refused',
      { outcome: 'refused', app: 'x', profile: 'p', detail: { code: 'gateway.not_allowed', count: 3, what: 'GET /v1/keys' } },
      '3 calls of x with p were refused: gateway.not_allowed · GET /v1/keys',
    ],
    ['gateway.refused', { outcome: 'refused', detail: { code: 'gateway.token_unknown', count: 1 } }, 'A call was refused: gateway.token_unknown'],
    ['credential.revoked', { outcome: 'failed', profile: 'p', detail: { outcome: 'impossible', why: 'it has none' } }, 'The issuer did not end the credential of p before its time: it has none'],
    ['run.requested', { app: 'a', detail: { profiles: ['p', 'q'] } }, 'a asked for p, q'],
  ])('%s', (kind, more, expected) => {
    expect(words(kind, more)).toBe(expected);
  });

  it('a kind of a newer broker shows its own name', () => {
    expect(words('lease.teleported', {})).toBe('lease.teleported');
    expect(title('lease.teleported')).toBe('lease.teleported');
  });

  it('names stand apart from our words', () => {
    expect(say(entry('profile.removed', { profile: '<b>x</b>' }))).toContainEqual({ name: '<b>x</b>' });
  });
});

it('says of a refusal what the broker says', () => {
  const table = readFileSync(new URL('../../../../crates/keyward-diag/src/code.rs', import.meta.url), 'utf8');
  const rows = [...table.matchAll(/^ +[A-Z]\w* "([a-z_.]+)" \d+ "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"$/gm)];
  const told = Object.fromEntries(rows.map(([, code, message, help]) => [code, { message, help: help?.replaceAll('\\"', '"') }]));
  for (const [code, words] of Object.entries(REFUSALS)) expect(told[code], code).toEqual(words);
  const missing = Object.keys(told).filter((code) => code.startsWith('gateway.') && !(code in REFUSALS));
  expect(missing).toEqual([]);
});

describe('the chain', () => {
  it('has words for each problem that the broker names', () => {
    const kinds = named('ProblemKind');
    expect(kinds.length).toBeGreaterThan(8);
    expect(kinds.filter((kind) => !PROBLEM_KINDS.includes(kind))).toEqual([]);
  });

  it('has a word for each outcome', () => {
    expect(named('Outcome').map(outcomeWord)).toEqual(['OK', 'Refused', 'Failed']);
  });

  it('says what the anchor says', () => {
    expect(anchorWords({ state: 'ok', seen: ['file', 'keyring'] })).toBe(
      'The end of the log is the one that the anchor file and the keyring of the system name',
    );
    for (const kind of named('ProblemKind').filter((kind) => kind.startsWith('anchor') || kind.startsWith('head'))) {
      expect(anchorWords({ state: kind, seen: [] })).toContain('anchor');
    }
  });
});
