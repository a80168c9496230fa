import { describe, expect, it } from 'vitest';
import { canonical, readEntry } from './entry';

describe('canonical', () => {
  it('writes keys in the order of their code units, without spaces', () => {
    expect(canonical({ b: 1, a: [true, null, { z: 'x', y: 1.5 }], '\u00e9': 2, '\ud83d\ude00': 3, '\ufb33': 4 })).toBe(
      '{"a":[true,null,{"y":1.5,"z":"x"}],"b":1,"\u00e9":2,"\ud83d\ude00":3,"\ufb33":4}',
    );
  });

  it('writes texts as RFC 8785 does', () => {
    expect(canonical('\u0007\n"\\\u2028\u20ac')).toBe('"\\u0007\\n\\"\\\\\u2028\u20ac"');
  });
});

describe('readEntry', () => {
  const message = (entry: unknown) => readEntry({ seq: 7, entry, prev: 'aa', mac: 'bb' });

  it('reads the fields of an entry', () => {
    const entry = message({
      seq: 7,
      at: '2026-11-21T03:04:05.123456Z',
      kind: 'credential.delivered',
      outcome: 'ok',
      app: 'codex',
      app_verified: false,
      peer: { uid: 1000, pid: 12, exe: '/usr/bin/codex' },
      detail: { delivery: 'env' },
    });
    expect(entry).toMatchObject({ seq: 7, app: 'codex', appVerified: false, peer: { pid: 12 }, detail: { delivery: 'env' } });
    expect(entry.at).toBe(Date.UTC(2026, 10, 21, 3, 4, 5, 123));
  });

  it.each([null, 'text', 7, [], { kind: 7, detail: [], peer: 'x', app: {} }])('takes %j without failing', (body) => {
    expect(message(body)).toMatchObject({ seq: 7, kind: '', outcome: '', detail: {} });
  });
});
