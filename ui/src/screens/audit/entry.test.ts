import { describe, expect, it } from 'vitest';
import { callerWords, canonical, readEntry, usesOf } from './entry';

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

describe('calls', () => {
  it('are read as far as they have their form', () => {
    const uses = [{ at: '2026-11-21T03:04:05Z', method: 'POST', host: 'h', path: '/p', status: 0, sent: 3, received: 'x', request_id: 'r' }, null, 7];
    expect(usesOf({ detail: { uses } })).toMatchObject([
      { at: Date.UTC(2026, 10, 21, 3, 4, 5), method: 'POST', status: 0, sent: 3, received: undefined, requestId: 'r' },
      { method: undefined },
      { status: undefined },
    ]);
    for (const uses of [undefined, 'x', { length: 3 }, null]) expect(usesOf({ detail: { uses } })).toEqual([]);
  });

  it('say which process made them', () => {
    const words = (process: unknown) => callerWords({ detail: { process } });
    expect(words('exact')).toBe('this one and no other');
    expect(words('one of 3')).toBe('one of 3 that share the connection, the first of them');
    expect(words('unknown')).toBe('which one could not be told');
    expect([words(undefined), words(7), words('a newer word')]).toEqual([undefined, undefined, 'a newer word']);
  });
});
