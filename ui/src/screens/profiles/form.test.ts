import { describe, expect, it } from 'vitest';
import type { Msg } from '#ui/host';
import { begin, faultsByField, fieldsOf, freshName, label, methodOf, remaining, secretOf, takesIdentity, tidy, type Draft } from './form';

const field = (name: string, more: Partial<Msg<'FieldMsg'>> = {}): Msg<'FieldMsg'> => ({
  name,
  required: false,
  secret: false,
  about: '',
  shape: 'text',
  ...more,
});

const FEDERATION: Msg<'KindMsg'> = {
  kind: 'anthropic-federation',
  role: 'issuer',
  about: '',
  fields: [
    field('base_url', { shape: 'url' }),
    field('federation_rule_id', { required: true, shape: 'id', begins: 'fdrl_' }),
    field('workspace_id', { shape: 'id' }),
    field('identity', { required: true, shape: 'identity' }),
    field('timeout', { shape: 'duration' }),
  ],
};
const STATIC: Msg<'KindMsg'> = {
  kind: 'static',
  role: 'issuer',
  about: '',
  fields: [field('secret', { required: true, secret: true }), field('provider')],
};
const method = (issuer: string, more: Partial<Msg<'MethodTile'>> = {}): Msg<'MethodTile'> => ({
  id: issuer,
  name: issuer,
  about: '',
  issuer,
  preset: {},
  asks: [],
  identities: [],
  variables: [],
  ...more,
});
const draft = (more: Partial<Draft> = {}): Draft => ({
  name: 'p',
  issuer: 'static',
  fields: {},
  identity: null,
  delivery: null,
  variables: [],
  max_ttl: null,
  only: [],
  containers: false,
  confirm: false,
  fence: { requests_per_minute: null, requests: null, models: [], usd: null },
  ...more,
});

describe('fields', () => {
  it('shows what a method asks, in its order, and hides what it sets', () => {
    const asked = fieldsOf(FEDERATION, method('anthropic-federation', { asks: ['workspace_id', 'federation_rule_id'] }));
    expect(asked.asked.map((f) => f.name)).toEqual(['workspace_id', 'federation_rule_id']);
    expect(asked.more.map((f) => f.name)).toEqual(['base_url', 'timeout']);
    const preset = fieldsOf(STATIC, method('static', { preset: { provider: 'github' } }));
    expect(preset).toMatchObject({ asked: [{ name: 'secret' }], more: [] });
  });

  it('asks a required field even where the method forgot it', () => {
    expect(fieldsOf(STATIC, method('static')).asked.map((f) => f.name)).toEqual(['secret']);
    expect(fieldsOf(STATIC, undefined).more.map((f) => f.name)).toEqual(['provider']);
  });

  it('knows who takes an assertion', () => {
    expect([takesIdentity(FEDERATION), takesIdentity(STATIC), takesIdentity(undefined)]).toEqual([true, false, false]);
  });
});

describe('a draft', () => {
  it('begins with the presets and the first identity source', () => {
    const tile = method('anthropic-federation', { preset: { base_url: 'https://x' }, identities: ['file', 'command'] });
    expect(begin(tile, 'a', [FEDERATION])).toMatchObject({ fields: { base_url: 'https://x' }, identity: { kind: 'file' } });
    expect(begin(method('static', { identities: ['file'] }), 'a', [STATIC]).identity).toBeNull();
  });

  it('is sent without what is empty', () => {
    const sent = tidy(
      draft({
        name: ' p ',
        fields: { secret: ' ', provider: ' x ', argv: [], env: { ' A ': 'b', '': 'c' }, n: 0 },
        identity: { kind: 'file', fields: { path: '' } },
        variables: [' A ', ''],
        max_ttl: ' ',
        only: [' POST  /v1/messages ', ' '],
      }),
    );
    expect(sent).toEqual(
      draft({ fields: { provider: 'x', env: { A: 'b' }, n: 0 }, identity: { kind: 'file', fields: {} }, variables: ['A'], only: ['POST /v1/messages'] }),
    );
  });

  it('is known again by the method that says most about it', () => {
    const tiles: Msg<'ProviderTile'>[] = [
      { id: 'other', name: '', about: '', methods: [method('static')] },
      { id: 'github', name: '', about: '', methods: [method('static', { preset: { provider: 'github' } })] },
    ];
    expect(methodOf(tiles, draft({ fields: { provider: 'github' } }))?.tile).toBe('github');
    expect(methodOf(tiles, draft({ fields: { provider: 'stripe' } }))?.tile).toBe('other');
    expect(methodOf(tiles, draft({ issuer: 'command' }))).toBeUndefined();
  });

  it('gets a name that is free', () => {
    expect(freshName('github', ['x'])).toBe('github');
    expect(freshName('github', ['github', 'github-2'])).toBe('github-3');
  });
});

describe('errors of the broker', () => {
  const fault = (causes: string[]) => ({ code: 'profile.invalid', message: '', causes, help: '' });
  const at = (causes: string[]) => Object.fromEntries(faultsByField(fault(causes)));

  it('stand at the field that they are about', () => {
    expect(at(['`issuer.secret` must name a stored secret: "secret:NAME"'])).toEqual({
      'issuer.secret': ['Must name a stored secret: "secret:NAME"'],
    });
    expect(at(['`issuer.identity.path` is not an absolute path', '`issuer.env.TOKEN` looks like a secret written in place'])).toEqual({
      'issuer.identity.path': ['Is not an absolute path'],
      'issuer.env': ['`issuer.env.TOKEN` looks like a secret written in place'],
    });
    expect(at(['limits.max_ttl is longer than 24h'])).toEqual({ 'limits.max_ttl': ['Is longer than 24h'] });
    expect(at(['`gateway.only` holds a path with dots in the place of a name'])).toEqual({
      'gateway.only': ['Holds a path with dots in the place of a name'],
    });
  });

  it('that all stand at fields are looked for there', () => {
    const two = { ...fault(['`issuer.secret` is missing', 'the profile is too long']), help: 'h' };
    expect(remaining(two, new Set(['issuer.secret']))).toMatchObject({ causes: ['the profile is too long'], help: 'h' });
    const all = remaining({ ...two, causes: two.causes.slice(0, 1) }, new Set(['issuer.secret']));
    expect(all).toMatchObject({ causes: [], help: 'mend what is marked below' });
    expect(remaining(fault([]), new Set()).help).toBe('');
  });

  it('stand at fields that were not filled in', () => {
    expect(at(['`issuer.identity.path` is missing', '`issuer.secret` is missing', '`delivery.env` is missing'])).toEqual({
      'issuer.identity.path': ['This is needed'],
      'issuer.secret': ['This is needed'],
      'delivery.env': ['This is needed'],
    });
  });

  it('about something else belong to no field', () => {
    expect(at(['the issuer said no', 'there is no provider `x`'])).toEqual({});
    expect(faultsByField(undefined).size).toBe(0);
  });

  it('are told once: at the field, or above the form', () => {
    const all = fault(['`issuer.secret` is missing', '`issuer.identity.path` is missing', 'the issuer said no']);
    expect(remaining(all, new Set(['issuer.secret'])).causes).toEqual(['`issuer.identity.path` is missing', 'the issuer said no']);
  });
});

it('references and labels', () => {
  expect(secretOf('secret:a')).toBe('a');
  expect(secretOf('a')).toBeUndefined();
  expect(secretOf(undefined)).toBeUndefined();
  expect(label('client_id')).toBe('Client ID');
  expect(label('some_new_field')).toBe('Some new field');
});
