// The profile editor's rules: which fields are asked, what the draft becomes, and where an error of the broker belongs. Pure.

import type { Fault, Msg } from '#ui/host';

/** A profile as the editor holds it. */
export type Draft = Msg<'ProfileDraft'>;
type Field = Msg<'FieldMsg'>;
type Kind = Msg<'KindMsg'>;
type Method = Msg<'MethodTile'>;

/** What an input of a field gives: a text, a list or a table of texts. */
export type FieldValue = string | string[] | Record<string, string>;

/** The kind of that name and role. */
export function kindOf(kinds: readonly Kind[], role: 'issuer' | 'identity', name: string | undefined): Kind | undefined {
  return kinds.find((kind) => kind.role === role && kind.kind === name);
}

/** The method that a stored profile was made by: same issuer, and its preset fields are as the method sets them. */
export function methodOf(tiles: readonly Msg<'ProviderTile'>[], draft: Draft): { tile: string; method: Method } | undefined {
  const all = tiles.flatMap((tile) => tile.methods.map((method) => ({ tile: tile.id, method })));
  const fits = all.filter(
    ({ method }) =>
      method.issuer === draft.issuer &&
      Object.entries(method.preset).every(([name, value]) => JSON.stringify(draft.fields[name]) === JSON.stringify(value)),
  );
  // The one that presets most says most about what the profile is for.
  return fits.sort((a, b) => Object.keys(b.method.preset).length - Object.keys(a.method.preset).length)[0];
}

/** Fields of a method, in two groups: those that are asked, and the rest. Preset ones and the identity source are in neither. */
export function fieldsOf(kind: Kind, method: Method | undefined): { asked: Field[]; more: Field[] } {
  const shown = kind.fields.filter((field) => field.shape !== 'identity' && !(method && field.name in method.preset));
  const isAsked = (field: Field): boolean => field.required || (method?.asks.includes(field.name) ?? false);
  const rank = (field: Field): number => {
    const place = method?.asks.indexOf(field.name) ?? -1;
    return place === -1 ? Number.MAX_SAFE_INTEGER : place;
  };
  return {
    asked: shown.filter(isAsked).sort((a, b) => rank(a) - rank(b)),
    more: shown.filter((field) => !isAsked(field)),
  };
}

/** The kind takes an assertion, so it needs an identity source. */
export function takesIdentity(kind: Kind | undefined): boolean {
  return kind?.fields.some((field) => field.shape === 'identity') ?? false;
}

/** A new draft by a method. */
export function begin(method: Method, name: string, kinds: readonly Kind[]): Draft {
  const identity = takesIdentity(kindOf(kinds, 'issuer', method.issuer)) ? method.identities[0] : undefined;
  return {
    name,
    issuer: method.issuer,
    fields: { ...method.preset },
    identity: identity === undefined ? null : { kind: identity, fields: {} },
    delivery: null,
    variables: [...method.variables],
    max_ttl: null,
    only: [],
    containers: false,
    confirm: false,
    fence: { requests_per_minute: null, requests: null, models: [], usd: null },
  };
}

/** A name for a new profile that no other has: the provider's id, then with a number. */
export function freshName(wanted: string, taken: readonly string[]): string {
  if (!taken.includes(wanted)) return wanted;
  for (let n = 2; ; n += 1) if (!taken.includes(`${wanted}-${n}`)) return `${wanted}-${n}`;
}

/** The draft as it is sent: what is empty is left out, so that the broker says what is missing. */
export function tidy(draft: Draft): Draft {
  return {
    ...draft,
    name: draft.name.trim(),
    fields: filled(draft.fields),
    identity: draft.identity ? { kind: draft.identity.kind, fields: filled(draft.identity.fields) } : null,
    variables: draft.variables.map((name) => name.trim()).filter(Boolean),
    max_ttl: draft.max_ttl?.trim() || null,
    only: draft.only.map((call) => call.trim().replace(/\s+/gu, ' ')).filter(Boolean),
    fence: { ...draft.fence, models: draft.fence.models.map((model) => model.trim()).filter(Boolean) },
  };
}

function filled(fields: Record<string, unknown>): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === 'string') {
      if (value.trim()) out[name] = value.trim();
    } else if (Array.isArray(value)) {
      if (value.length) out[name] = value;
    } else if (typeof value === 'object' && value !== null) {
      const rows = Object.entries(value).filter(([key]) => key.trim());
      if (rows.length) out[name] = Object.fromEntries(rows.map(([key, content]) => [key.trim(), content]));
    } else if (value !== undefined && value !== null) out[name] = value;
  }
  return out;
}

/** The stored secret that a field names: `secret:NAME` → `NAME`. */
export function secretOf(value: unknown): string | undefined {
  return typeof value === 'string' && value.startsWith('secret:') ? value.slice('secret:'.length) : undefined;
}

/** Names of stored secrets, as the broker takes them. */
export const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/u;

/** Where in the form an error belongs: the field's path in the profile file → what is wrong with it, in words. */
export function faultsByField(fault: Fault | undefined): Map<string, string[]> {
  const out = new Map<string, string[]>();
  for (const cause of fault?.causes ?? []) {
    const path = fieldIn(cause);
    if (path) out.set(path, [...(out.get(path) ?? []), wordsOf(cause, path)]);
  }
  return out;
}

/** The fault without the causes that stand at one of the fields; where that is all of them, what helps is marked there. */
export function remaining(fault: Fault, shown: ReadonlySet<string>): Fault {
  const causes = fault.causes.filter((cause) => !shown.has(fieldIn(cause) ?? ''));
  const below = causes.length === 0 && fault.causes.length > 0;
  return { ...fault, causes, ...(below ? { help: 'mend what is marked below' } : {}) };
}

/** The input that a cause names: a setting of the issuer or of the identity source, `delivery.…`, `gateway.…`, `fence.…` or `limits.…`. */
function fieldIn(cause: string): string | undefined {
  const named = /^(?:`([\w.]+)`|((?:issuer|delivery|gateway|fence|limits)\.[\w.]+\b))/u.exec(cause);
  const [section, ...rest] = (named?.[1] ?? named?.[2] ?? '').split('.');
  if (!section || !['issuer', 'delivery', 'gateway', 'fence', 'limits'].includes(section) || !rest[0]) return undefined;
  const depth = section === 'issuer' && rest[0] === 'identity' ? 2 : 1;
  return [section, ...rest.slice(0, depth)].join('.');
}

function wordsOf(cause: string, path: string): string {
  const rest = cause.replaceAll(`\`${path}\``, '').replace(new RegExp(`^${path.replaceAll('.', '\\.')}`), '').trim().replace(/^: */u, '');
  if (rest === 'is missing') return 'This is needed';
  return rest ? rest.charAt(0).toUpperCase() + rest.slice(1) : cause;
}

/** Names of fields as people read them; a field without words here is shown by its own name. */
export function label(field: string): string {
  const known: Record<string, string> = {
    access_key_id: 'Access key ID',
    argv: 'Program',
    auth: 'How the client proves itself',
    client_id: 'Client ID',
    client_secret: 'Client secret',
    container_url: 'Container URL',
    env: 'Variables of the program',
    federation_rule_id: 'Federation rule ID',
    instance_url: 'Instance URL',
    metadata_url: 'Metadata URL',
    organization_id: 'Organization ID',
    service_account_id: 'Service account ID',
    token_url: 'Token URL',
    base_url: 'Base URL',
    workspace_id: 'Workspace ID',
  };
  const words = field.replaceAll('_', ' ');
  return known[field] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

/** What to type, by the shape of the field. */
export function example(field: Field): string {
  switch (field.shape) {
    case 'duration':
      return '30s';
    case 'url':
      return 'https://';
    case 'path':
      return '/';
    case 'uuid':
      return '00000000-0000-0000-0000-000000000000';
    case 'id':
      return `${field.begins ?? ''}…`;
    case 'variable':
      return 'NAME_OF_A_VARIABLE';
    case 'program':
      return '/usr/bin/program --argument';
    default:
      return '';
  }
}
