import { describe, expect, it } from 'vitest';
import { fitting, readCommand, writeCommand } from './command';

describe('readCommand', () => {
  it.each([
    ['claude', ['claude']],
    ['  claude   --model  opus ', ['claude', '--model', 'opus']],
    [`sh -c 'echo "a b"; ls'`, ['sh', '-c', 'echo "a b"; ls']],
    [`a "b c" d\\ e 'f'"g"`, ['a', 'b c', 'd e', 'fg']],
    [`a "" ''`, ['a', '', '']],
    [`a "x\\"y\\\\z\\n"`, ['a', 'x"y\\z\\n']],
    [`'it'\\''s'`, ["it's"]],
    ['a\tb\nc', ['a', 'b', 'c']],
    ['', []],
    ['   ', []],
    ['\u{1F600} x', ['\u{1F600}', 'x']],
  ])('%j', (line, parts) => {
    expect(readCommand(line)).toMatchObject({ parts });
    expect(readCommand(line).error).toBeUndefined();
  });

  it.each([`a 'b`, 'a "b', 'a \\'])('%j cannot be read', (line) => {
    expect(readCommand(line).error).toMatch(/quote|backslash/u);
  });

  it.each(['ls ~/x', 'a $HOME', 'a ${X}', 'a `b`', 'a *.ts', 'a | b', 'a > f', 'a && b', 'a 2> f'])('%j is not read by a shell, and says so', (line) => {
    expect(readCommand(line).notes).toHaveLength(1);
  });

  it.each([`a '$HOME'`, `sh -c 'a | b'`, 'a --x=1&2', 'a a~b', 'a \\*'])('%j needs no note', (line) => {
    expect(readCommand(line).notes).toEqual([]);
  });
});

it('a line reads to the parts that it was written from', () => {
  const alphabet = ['a', ' ', "'", '"', '\\', '$', '\n', '~', '*', '\u{1F600}', '-', ''];
  let seed = 7;
  const next = (n: number): number => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed % n;
  };
  for (let round = 0; round < 500; round += 1) {
    const parts = Array.from({ length: next(5) }, () => Array.from({ length: next(6) }, () => alphabet[next(alphabet.length)]).join(''));
    expect(readCommand(writeCommand(parts))).toEqual({ parts, notes: [] });
  }
});

describe('fitting', () => {
  const tiles = [
    { id: 'anthropic', methods: [{ issuer: 'anthropic-federation', preset: {} }, { issuer: 'static', preset: { provider: 'anthropic' } }] },
    { id: 'github', methods: [{ issuer: 'static', preset: { provider: 'github' } }] },
    { id: 'other', methods: [{ issuer: 'static', preset: {} }] },
  ];
  const profile = (name: string, issuer: string, toml = '') => ({ name, issuer, toml });
  const gh = profile('gh', 'static', '[issuer]\nkind = "static"\nprovider = "github"\n');

  it('chooses the one profile that fits', () => {
    const profiles = [profile('work', 'anthropic-federation'), gh];
    expect(fitting(['anthropic', 'github', 'other', 'none'], tiles, profiles)).toEqual(['work', 'gh']);
  });

  it('chooses none where several fit', () => {
    const profiles = [profile('a', 'anthropic-federation'), profile('b', 'anthropic-federation'), gh];
    expect(fitting(['anthropic'], tiles, profiles)).toEqual([]);
  });
});
