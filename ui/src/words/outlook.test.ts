import { describe, expect, it } from 'vitest';
import type { Msg } from '#ui/host/contract';
import { bar, DELIVERY, heldLeases, leaseState, outlookWords, takenWords, useWords } from './outlook';

const NOW = Date.parse('2026-11-21T12:00:00Z');
const time = (s: number): string => new Date(NOW + s * 1000).toISOString();
const plain = (text: string): string => text.replace(/[\u2068\u2069]/g, '');

function lease(over: Partial<Msg<'LeaseMsg'>> = {}): Msg<'LeaseMsg'> {
  return {
    lease: 'l-1',
    profile: 'bedrock',
    delivery: 'env',
    state: 'live',
    issued_at: time(-600),
    received_at: time(-600),
    expires_at: time(600),
    limit_at: time(7200),
    renewals: 0,
    uses: null,
    outlook: { kind: 'ends', at: time(725), why: 'a variable cannot be renewed' },
    ...over,
  };
}

function run(id: string, leases: Msg<'LeaseMsg'>[]): Msg<'RunMsg'> {
  return { run: id, pid: 1, app: id, app_verified: true, project: '/p', started_at: time(-600), leases };
}

describe('the words of an outlook', () => {
  it('say what is lost, when and why', () => {
    expect(plain(outlookWords(lease(), 'Claude Code', NOW))).toBe(
      'Claude Code loses bedrock in 12 min: a variable cannot be renewed',
    );
    const fails = lease({
      outlook: { kind: 'fails', at: time(65), why: 'the issuer refused', code: 'issuer.refused', next_try_at: time(20) },
    });
    expect(plain(outlookWords(fails, 'codex', NOW))).toBe(
      'codex loses bedrock in 1 min 05 s: the issuer refused; next try in 20 s',
    );
    const lapsed = lease({ state: 'lapsed', outlook: { kind: 'lapsed', at: time(-30), why: 'the network is away', next_try_at: time(0) } });
    expect(plain(outlookWords(lapsed, 'codex', NOW))).toBe(
      'codex has been without bedrock for 30 s: the network is away; next try at once',
    );
    const over = lease({ delivery: 'file', state: 'revoked', outlook: { kind: 'ends', at: time(-130), why: 'it was taken back' } });
    expect(plain(outlookWords(over, 'codex', NOW))).toBe('codex lost bedrock 2 min ago: it was taken back');
  });

  it('of a gateway lease name its limit, since its credentials come and go unseen', () => {
    const renews = (over: object) =>
      plain(outlookWords(lease({ delivery: 'gateway', limit_at: time(7200), outlook: { kind: 'renews', at: time(0), why: 'w' }, ...over }), 'claude', NOW));
    expect(renews({})).toBe('claude calls with bedrock through the gateway; it is renewed in the background and ends at its limit in 2 h');
    expect(renews({ limit_at: time(-1) })).toMatch(/and is ending at its limit$/);
    expect(renews({ state: 'revoked', outlook: { kind: 'ends', at: time(-130), why: 'it was taken back' } })).toBe(
      'claude lost bedrock 2 min ago: it was taken back',
    );
    expect(renews({ outlook: { kind: 'fails', at: time(65), why: 'the issuer refused' } })).toMatch(/^claude loses bedrock in 1 min 05 s/);
  });

  it('do not say that a variable is lost with its lease', () => {
    const limited = { expires_at: time(3540), limit_at: time(3540) };
    const live = lease({ ...limited, outlook: { kind: 'ends', at: time(3540), why: 'the lease reaches its limit of 1h' } });
    expect(plain(outlookWords(live, 'sh', NOW))).toBe('the lease of bedrock ends in 59 min; sh keeps the value: the lease reaches its limit of 1h');
    expect(plain(outlookWords(live, 'sh', NOW + 3_600_000))).toMatch(/^the lease of bedrock is ending; sh keeps/);
    expect([leaseState(live, NOW).word, leaseState(live, NOW + 3_000_000).word]).toEqual(['Lease ends', 'Lease ends soon']);
    const taken = { state: 'revoked', outlook: { kind: 'ends' as const, at: time(-130), why: 'it was taken back' } };
    expect(plain(outlookWords(lease({ ...limited, ...taken }), 'sh', NOW))).toBe(
      'the lease of bedrock ended 2 min ago; sh keeps the value: it was taken back',
    );
    // Until its credential ends too.
    expect(leaseState(lease(taken), NOW).word).toBe('Stays in the process');
    expect(leaseState(lease(taken), NOW + 800_000).word).toBe('Taken back');
    expect(leaseState(lease({ ...limited, ...taken, delivery: 'file' }), NOW).word).toBe('Taken back');
  });

  it('never promise time that is over', () => {
    expect(plain(outlookWords(lease({ outlook: { kind: 'ends', at: time(-1), why: 'x' } }), 'a', NOW))).toBe('a is losing bedrock: x');
    expect(plain(outlookWords(lease({ outlook: { kind: 'renews', at: time(-1), why: 'x' } }), 'a', NOW))).toBe(
      'bedrock is being renewed for a',
    );
  });

  it('do not let a name change the sentence', () => {
    const said = outlookWords(lease({ profile: 'x\u202Ey\u2069\u0007' }), 'a\u2067b', NOW);
    expect(said).toContain('\u2068xU+202EyU+2069U+0007\u2069');
    expect(said).toContain('\u2068aU+2067b\u2069');
    expect(said.match(/[\u202A-\u202E\u2066\u2067]/)).toBeNull();
  });

  it('change once a minute at most for voices', () => {
    const fails = lease({ outlook: { kind: 'fails', at: time(150), why: 'w', next_try_at: time(20) } });
    const said = new Set([0, 5, 10, 29].map((s) => outlookWords(fails, 'a', NOW + s * 1000, true)));
    expect(said.size).toBe(1);
  });
});

describe('a bar', () => {
  it('shrinks from received to expired, with the renewal on it', () => {
    const file = lease({ delivery: 'file', renew_at: time(300), limit_at: time(86_400) });
    expect(bar(file, NOW)).toEqual({ left: 0.5, renew: 0.25, limitEnds: false });
    expect(bar(file, NOW + 600_000)).toMatchObject({ left: 0 });
    expect(bar(file, NOW + 900_000)).toMatchObject({ left: 0 });
    expect(bar(file, NOW - 900_000)).toMatchObject({ left: 1 });
    expect(bar(lease({ limit_at: time(600) }), NOW)).toEqual({ left: 0.5, limitEnds: true });
  });

  it('is that of the lease through the gateway, whatever its credentials do', () => {
    const gateway = { delivery: 'gateway', issued_at: time(-600), expires_at: time(600), limit_at: time(600), renew_at: time(300) } as const;
    for (const received_at of [time(-600), time(-1)]) {
      expect(bar(lease({ ...gateway, received_at }), NOW)).toEqual({ left: 0.5, renew: 0.25, limitEnds: true });
    }
  });

  it('is empty where the times make no sense', () => {
    expect(bar(lease({ expires_at: time(-600) }), NOW).left).toBe(0);
    expect(bar(lease({ expires_at: 'never' }), NOW).left).toBe(0);
  });
});

describe('leases', () => {
  it('are sorted by the time that is left; what is lost already leads', () => {
    const renews = lease({ lease: 'r', expires_at: time(264), outlook: { kind: 'renews', at: time(5), why: '' } });
    const ends = lease({ lease: 'e', expires_at: time(3540), outlook: { kind: 'ends', at: time(3540), why: '' } });
    const fails = lease({ lease: 'f', expires_at: time(60), state: 'renew_failed', outlook: { kind: 'fails', at: time(60), why: '' } });
    const lapsed = lease({ lease: 'l', state: 'lapsed', outlook: { kind: 'lapsed', at: time(-60), why: '' } });
    const old = lease({ lease: 'o', state: 'expired', outlook: { kind: 'ends', at: time(-90), why: '' } });
    const older = lease({ lease: 'p', state: 'revoked', outlook: { kind: 'ends', at: time(-99), why: '' } });
    const { live, over } = heldLeases([run('a', [renews, older, ends]), run('b', [old, fails, lapsed])]);
    expect(live.map((h) => h.lease.lease)).toEqual(['l', 'f', 'r', 'e']);
    expect(over.map((h) => h.lease.lease)).toEqual(['o', 'p']);
  });

  it('have a state with a word', () => {
    expect(leaseState(lease(), NOW)).toEqual({ lean: 'idle', word: 'Ends by itself' });
    expect(leaseState(lease(), NOW + 200_000)).toEqual({ lean: 'warn', word: 'Ends soon' });
    expect(leaseState(lease({ state: 'released' }), NOW)).toEqual({ lean: 'idle', word: 'Given back' });
  });

  it('say what taking back does, by delivery', () => {
    const gateway = lease({ delivery: 'gateway' });
    expect(takenWords([gateway, gateway])).toBe('Through the gateway nothing goes from that moment on, and calls under way are cut.');
    expect(takenWords([gateway])).not.toMatch(/stays/);
    expect(takenWords([lease(), gateway])).toMatch(/^Through the gateway .* What is in a variable stays/);
    expect(takenWords([])).toBe('');
    expect(DELIVERY.gateway.gives).not.toMatch(/cannot be/);
  });

  it('say that use cannot be seen rather than that there was none', () => {
    expect(useWords(lease(), NOW)).toBe('use cannot be seen');
    expect(useWords(lease({ uses: 0 }), NOW)).toBe('not used yet');
    expect(useWords(lease({ uses: 1200, last_use_at: time(-3) }), NOW)).toBe('used 1,200 times, last 3 s ago');
  });
});
