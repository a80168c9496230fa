import { expect, it } from 'vitest';
import { appName } from './apps';
import { folder } from './folder';
import { count, list, pieces, sentence, stretches, visible } from './text';

it('shows what would not be seen', () => {
  expect(visible('a\u0000b\u001b[31m\u007f')).toBe('aU+0000bU+001B[31mU+007F');
  expect(visible('pass\u202Egnp.exe')).toBe('passU+202Egnp.exe');
  expect(visible('zero\u200Bwidth\u2066\u{E0041}\uFEFF')).toBe('zeroU+200BwidthU+2066U+E0041U+FEFF');
  expect(visible('line\nbreak\u2028')).toBe('lineU+000AbreakU+2028');
  expect(visible('\ud800')).toBe('U+D800');
});

it('leaves what is seen as it is', () => {
  for (const text of ['claude', 'Ärger ~/work/שלום', '日本語 – “x”', '<b>&amp;</b>']) {
    expect(pieces(text)).toEqual([{ text }]);
  }
  expect(pieces('')).toEqual([]);
});

it('takes as literal what stands between two backticks', () => {
  const said = (text: string) => stretches(text).map((part) => (part.code ? { code: part.pieces } : part.pieces));
  const run = { code: [{ text: 'keyward unlock' }] };
  expect(said('run `keyward unlock`')).toEqual([[{ text: 'run ' }], run]);
  expect(said('`keyward unlock`: or `keyward unlock`')).toEqual([run, [{ text: ': or ' }], run]);
  expect(said('`keyward unlock``keyward unlock`')).toEqual([run, run]);
  expect(said('`pass\u202Egnp`')).toEqual([{ code: [{ text: 'pass' }, { text: 'U+202E', hidden: true }, { text: 'gnp' }] }]);
  expect(said('`a\nb`')).toEqual([{ code: [{ text: 'a' }, { text: 'U+000A', hidden: true }, { text: 'b' }] }]);
  expect(said('nothing is named `a`b`')).toEqual([[{ text: 'nothing is named ' }], { code: [{ text: 'a' }] }, [{ text: 'b`' }]]);
  expect(said('named `` or `a`')).toEqual([[{ text: 'named `` or ' }], { code: [{ text: 'a' }] }]);
  for (const text of ['it`s', '`', '``', '```', 'the vault is locked']) expect(said(text)).toEqual([[{ text }]]);
  expect(said('')).toEqual([]);
  expect(pieces('run `x`')).toEqual([{ text: 'run `x`' }]);
});

it('counts and lists', () => {
  expect([count(1, 'run'), count(1200, 'run'), count(2, 'entry', 'entries')]).toEqual(['1 run', '1,200 runs', '2 entries']);
  expect([list([]), list(['a']), list(['a', 'b']), list(['a', 'b', 'c'])]).toEqual(['', 'a', 'a and b', 'a, b and c']);
  expect(sentence('the vault is locked')).toBe('The vault is locked');
});

it('calls an app by the name of the installed agent with its program', () => {
  const agents = [{ id: 'claude-code', name: 'Claude Code', path: '/usr/bin/claude', args: [], terminal: true, providers: [] }];
  expect(appName('claude', agents)).toBe('Claude Code');
  expect(appName('claude-code', agents)).toBe('Claude Code');
  expect(appName('psql', agents)).toBe('psql');
});

it('writes the home folder as ~, and only that of the user', () => {
  const near = '/home/ada/.local/share/keyward';
  expect(folder('/home/ada/work/shop', near)).toBe('~/work/shop');
  expect(folder('/home/ada', near)).toBe('~');
  expect(folder('/home/adam/x', near)).toBe('/home/adam/x');
  expect(folder('/srv/x', near)).toBe('/srv/x');
  expect(folder('/home/ada/x', '/tmp/keyward')).toBe('/home/ada/x');
  expect(folder('/home/ada/x', undefined)).toBe('/home/ada/x');
});
