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

/** One call through the gateway, as an entry lists it. Without a status its end stands in a later entry. */
export interface Use {
  /** Milliseconds since 1970; NaN where there is no time. */
  at: number;
  method?: string;
  host?: string;
  /** Without its query. */
  path?: string;
  /** Status that the app was given; 0 where it got none. */
  status?: number;
  /** Bytes of the bodies. */
  sent?: number;
  received?: number;
  /** Time that it took, in milliseconds. */
  ms?: number;
  /** Id that the API gave the request. */
  requestId?: string;
  /** Why it was not passed on whole. */
  ended?: string;
}

/** The calls that an entry lists. */
export function usesOf(entry: Pick<Entry, 'detail'>): Use[] {
  const list: unknown = entry.detail['uses'];
  return (Array.isArray(list) ? list : []).map(fields).map((use) => ({
    at: Date.parse(text(use['at']) ?? ''),
    method: text(use['method']),
    host: text(use['host']),
    path: text(use['path']),
    status: number(use['status']),
    sent: number(use['sent']),
    received: number(use['received']),
    ms: number(use['ms']),
    requestId: text(use['request_id']),
    ended: text(use['ended']),
  }));
}

/** Which process made the calls of an entry, in words; undefined where the entry does not tell. */
export function callerWords(entry: Pick<Entry, 'detail'>): string | undefined {
  const process = text(entry.detail['process']);
  const shared = /^one of (\d+)$/u.exec(process ?? '')?.[1];
  if (shared) return `one of ${shared} that share the connection, the first of them`;
  return process === 'exact' ? 'this one and no other' : process === 'unknown' ? 'which one could not be told' : process;
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
