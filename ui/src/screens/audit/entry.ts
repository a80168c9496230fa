// An entry of the log as the screens read it. Nothing in it is trusted to be there or to have its form.

import type { Msg } from '#ui/host';

/** An entry: the fields that sentences and the drawer use. Absent texts are undefined. */
export interface Entry {
  seq: number;
  /** Milliseconds since 1970; NaN where the entry has no time. */
  at: number;
  kind: string;
  outcome: string;
  run?: string;
  lease?: string;
  profile?: string;
  grant?: string;
  app?: string;
  appVerified?: boolean;
  project?: string;
  peer?: { uid?: number; pid?: number; exe?: string };
  detail: Readonly<Record<string, unknown>>;
  prev: string;
  mac: string;
  /** The body as it came. */
  body: unknown;
}

type Fields = Readonly<Record<string, unknown>>;

function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

/** A text field, or undefined. */
export function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** A number field, or undefined. */
export function number(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
}

/** The texts of a list field. */
export function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
}

/** Reads an entry as the broker sends it. */
export function readEntry(message: Msg<'AuditEntryMsg'>): Entry {
  const body = fields(message.entry);
  const peer = fields(body['peer']);
  return {
    seq: message.seq,
    at: Date.parse(text(body['at']) ?? ''),
    kind: text(body['kind']) ?? '',
    outcome: text(body['outcome']) ?? '',
    run: text(body['run']),
    lease: text(body['lease']),
    profile: text(body['profile']),
    grant: text(body['grant']),
    app: text(body['app']),
    appVerified: typeof body['app_verified'] === 'boolean' ? body['app_verified'] : undefined,
    project: text(body['project']),
    peer: body['peer'] ? { uid: number(peer['uid']), pid: number(peer['pid']), exe: text(peer['exe']) } : undefined,
    detail: fields(body['detail']),
    prev: message.prev,
    mac: message.mac,
    body: message.entry,
  };
}

/**
 * Canonical JSON of RFC 8785: keys in the order of their UTF-16 code units, no spaces. ECMAScript writes numbers and texts as the
 * RFC asks, so a body reads as the chain covers it.
 */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const keys = Object.keys(value).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical((value as Fields)[key])}`).join(',')}}`;
  }
  return JSON.stringify(value) ?? 'null';
}
