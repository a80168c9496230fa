import { describe, expect, it } from 'vitest';
import { coalesce } from './coalesce';
import { jumped } from './jump';
import { wish } from './keys';
import { parseHash, writeHash } from './place';

describe('coalesce', () => {
  it('runs one job and keeps one waiting, however often it is triggered', async () => {
    let running = 0;
    let most = 0;
    let done = 0;
    const release: (() => void)[] = [];
    const trigger = coalesce(async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise<void>((go) => release.push(go));
      running -= 1;
      done += 1;
    });
    const first = trigger();
    const rest = [trigger(), trigger(), trigger()];
    expect(release.length).toBe(1);
    release.shift()?.();
    await first;
    expect(done).toBe(1);
    // What was triggered meanwhile is one more job, which began after the trigger.
    while (release.length === 0) await Promise.resolve();
    release.shift()?.();
    await Promise.all(rest);
    expect([most, done, release.length]).toEqual([1, 2, 0]);
  });

  it('runs anew when it is triggered later', async () => {
    let done = 0;
    const trigger = coalesce(() => Promise.resolve(void (done += 1)));
    await trigger();
    await trigger();
    expect(done).toBe(2);
  });

  it('keeps to one job while it waits for the gap', async () => {
    let done = 0;
    const trigger = coalesce(() => Promise.resolve(void (done += 1)), 5);
    const all = [trigger(), trigger()];
    await all[0];
    all.push(trigger(), trigger());
    await Promise.all(all);
    expect(done).toBe(2);
  });
});

describe('time jumps', () => {
  const before = { wall: 1_000_000, steady: 500 };
  it('are seen after a suspend and after a change of the wall clock', () => {
    expect(jumped(before, { wall: 1_000_000 + 3_600_000, steady: 1500 })).toBe(true);
    expect(jumped(before, { wall: 1_000_000 - 60_000, steady: 1500 })).toBe(true);
  });
  it('are not seen in the usual course of time', () => {
    expect(jumped(before, { wall: 1_001_003, steady: 1500 })).toBe(false);
    expect(jumped(before, { wall: 1_000_000 + 86_400_000, steady: 500 + 86_400_000 })).toBe(false);
  });
});

describe('the address', () => {
  it('names a screen and what it shows', () => {
    const hash = writeHash('audit', { app: 'a & b=c?', profile: undefined, kind: '' });
    expect(parseHash(hash)).toEqual({ screen: 'audit', query: { app: 'a & b=c?' } });
    expect(writeHash('now')).toBe('#/now');
  });
  it('leads to Now where it names none', () => {
    for (const hash of ['', '#', '#/', '#/nothing?x=1', '#/__proto__', '#/toString']) {
      expect(parseHash(hash).screen).toBe('now');
    }
    expect(parseHash('#/welcome').screen).toBe('welcome');
  });
});

describe('keys', () => {
  const key = (name: string, ctrlKey = false) => ({ key: name, ctrlKey, metaKey: false, altKey: false });
  it('ask for screens, search and keys', () => {
    expect(wish(key('1', true), false)).toEqual({ go: 'now' });
    expect(wish(key('9', true), true)).toEqual({ go: 'settings' });
    expect(wish(key('0', true), false)).toBeUndefined();
    expect([wish(key('/'), false), wish(key('?'), false)]).toEqual(['search', 'keys']);
  });
  it('type a letter inside a field', () => {
    expect([wish(key('/'), true), wish(key('?'), true), wish(key('1'), true)]).toEqual([undefined, undefined, undefined]);
  });
});
