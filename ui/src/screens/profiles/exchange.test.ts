import { describe, expect, it } from 'vitest';
import { exchangeWords, factName, heldWords, standing } from './exchange';

const NOW = Date.UTC(2026, 10, 21, 10);
const iso = (ms: number): string => new Date(NOW + ms).toISOString();

describe('the state of a profile', () => {
  const failed = { at: iso(0), ok: false, code: 'x', facts: {} };
  const held = { received_at: iso(-1000), expires_at: iso(60_000) };

  it.each([
    [{ leases: 2, last_exchange: failed, held }, 'failed'],
    [{ leases: 2, held }, '2 leases'],
    [{ leases: 0, held }, 'held'],
    [{ leases: 0, held: { received_at: iso(0) } }, 'held'],
    [{ leases: 0, held: { ...held, expires_at: iso(-1) } }, 'idle'],
    [{ leases: 0 }, 'idle'],
  ])('%j', (profile, word) => {
    expect(standing(profile, NOW).word).toBe(word);
  });
});

it('exchanges have words', () => {
  expect(exchangeWords(null, NOW)).toBe('None since the broker started');
  expect(exchangeWords({ at: iso(-120_000), ok: false, code: 'issuer.refused', facts: {} }, NOW)).toBe('Failed 2 min ago: issuer.refused');
  expect(exchangeWords({ at: iso(-120_000), ok: true, expires_in_s: 3600, facts: {} }, NOW)).toBe(
    'Made a credential that lived 1 h, 2 min ago',
  );
});

it('what is held has words', () => {
  expect(heldWords(undefined, NOW)).toBe('None at the moment');
  expect(heldWords({ received_at: iso(-60_000) }, NOW)).toBe('One that does not end by itself, received 1 min ago');
  expect(heldWords({ received_at: iso(-60_000), expires_at: iso(3_600_000), renew_at: iso(1_800_000) }, NOW)).toBe(
    'One with 1 h left, renewed in 30 min if it is in use',
  );
  expect(heldWords({ received_at: iso(-60_000), expires_at: iso(-1) }, NOW)).toBe('One that has ended, received 1 min ago');
});

it('facts have names', () => {
  expect([factName('request_id'), factName('something_else')]).toEqual(['Request ID', 'Something else']);
});
