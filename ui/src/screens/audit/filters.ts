// What the review is filtered by: in the address, in the request, and in words. Pure.

import type { Msg } from '#ui/host';
import { clock, date } from '#ui/words/time';

/** Filters that hold all at once; an absent one does not count. Times are milliseconds since 1970. */
export interface Filters {
  app?: string;
  profile?: string;
  project?: string;
  /** A kind, or a family of kinds. */
  kind?: string;
  outcome?: string;
  run?: string;
  text?: string;
  since?: number;
  until?: number;
  /** The preset that the times came from; they move with the clock until they are changed. */
  preset?: Preset;
}

/** Ranges of time by one click. `all` is no range. */
export const PRESETS = ['today', '7d', '30d', 'all'] as const;

/** Name of a preset. */
export type Preset = (typeof PRESETS)[number];

/** What the presets are called. */
export const PRESET_NAMES: Readonly<Record<Preset, string>> = {
  today: 'Today',
  '7d': '7 days',
  '30d': '30 days',
  all: 'All',
};

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/**
 * The range of a preset: from midnight of the person's time zone, or from a whole hour so many days back, so that the list and
 * the histogram, whose bars are whole hours, count the same.
 */
export function presetRange(preset: Preset, now: number): Pick<Filters, 'since' | 'until' | 'preset'> {
  if (preset === 'all') return { since: undefined, until: undefined, preset: undefined };
  const days = { today: 0, '7d': 7, '30d': 30 }[preset];
  if (preset === 'today') {
    const midnight = new Date(now);
    midnight.setHours(0, 0, 0, 0);
    return { since: midnight.getTime(), until: undefined, preset };
  }
  return { since: Math.floor((now - days * DAY) / HOUR) * HOUR, until: undefined, preset };
}

/** Which preset is in force: the chosen one, or `all` where nothing limits the time. */
export function activePreset(filters: Filters): Preset | undefined {
  if (filters.preset) return filters.preset;
  return filters.since === undefined && filters.until === undefined ? 'all' : undefined;
}

const NAMES = ['app', 'profile', 'project', 'kind', 'outcome', 'run', 'text'] as const;

/** Longest search text that the broker takes, in bytes. */
const TEXT_MAX_BYTES = 200;

const encoder = new TextEncoder();

/** Cuts a search text to what the broker takes, at a character. */
export function searchText(typed: string): string | undefined {
  let out = '';
  let bytes = 0;
  for (const character of typed.trim()) {
    bytes += encoder.encode(character).length;
    if (bytes > TEXT_MAX_BYTES) break;
    out += character;
  }
  return out || undefined;
}

/** Reads filters out of an address. What cannot be read is left out. */
export function fromQuery(query: Readonly<Record<string, string>>, now: number): Filters {
  const filters: Filters = {};
  for (const name of NAMES) if (query[name]) filters[name] = query[name];
  if (filters.text) filters.text = searchText(filters.text);
  const preset = PRESETS.find((p) => p === query['range']);
  if (preset) return { ...filters, ...presetRange(preset, now) };
  const since = Date.parse(query['since'] ?? '');
  const until = Date.parse(query['until'] ?? '');
  if (Number.isFinite(since)) filters.since = since;
  if (Number.isFinite(until)) filters.until = until;
  return filters;
}

/** Writes filters into an address. */
export function toQuery(filters: Filters): Record<string, string | undefined> {
  const query: Record<string, string | undefined> = {};
  for (const name of NAMES) query[name] = filters[name];
  if (filters.preset && filters.preset !== 'all') query['range'] = filters.preset;
  else Object.assign(query, times(filters));
  return query;
}

function times(filters: Filters): { since?: string; until?: string } {
  return {
    ...(filters.since === undefined ? {} : { since: new Date(filters.since).toISOString() }),
    ...(filters.until === undefined ? {} : { until: new Date(filters.until).toISOString() }),
  };
}

/** The filters as a page of the log takes them. */
export function auditQuery(filters: Filters): Msg<'AuditQuery'> {
  const query: Record<string, string> = {};
  for (const name of NAMES) {
    const value = filters[name];
    if (value) query[name] = value;
  }
  return { ...query, ...times(filters) };
}

/** The filters as the summary takes them: without text and run, which it does not count by. */
export function summaryQuery(filters: Filters, bars?: number): Msg<'AuditSummaryQuery'> {
  const { text: _text, run: _run, ...query } = auditQuery(filters) as Record<string, string>;
  return { ...query, ...(bars === undefined ? {} : { bars }) };
}

/** The summary counts exactly what the list shows: nothing is left out of it, and the times are whole hours. */
export function counted(filters: Filters): boolean {
  const whole = (time: number | undefined): boolean => time === undefined || time % HOUR === 0;
  return !filters.text && !filters.run && whole(filters.since) && whole(filters.until);
}

/** Nothing is filtered. */
export function isEmpty(filters: Filters): boolean {
  return Object.values(toQuery(filters)).every((value) => value === undefined);
}

/** Both ask for the same entries. */
export function same(a: Filters, b: Filters): boolean {
  const [first, second] = [toQuery(a), toQuery(b)];
  return [...NAMES, 'range', 'since', 'until'].every((name) => first[name] === second[name]);
}

/** A time as an input of the kind `datetime-local` takes it, in the person's time zone. */
export function toInput(time: number | undefined): string {
  if (time === undefined || !Number.isFinite(time)) return '';
  const d = new Date(time);
  const two = (n: number): string => String(n).padStart(2, '0');
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}T${two(d.getHours())}:${two(d.getMinutes())}`;
}

/** The time that such an input holds. */
export function fromInput(value: string): number | undefined {
  const time = value ? new Date(value).getTime() : NaN;
  return Number.isFinite(time) ? time : undefined;
}

/** The range in words: `since 3 Nov 14:00`, `3 Nov 14:00 – 4 Nov 02:00`. */
export function rangeWords(filters: Filters, now: number): string {
  const moment = (time: number): string => `${date(time, now)} ${clock(time)}`;
  if (filters.preset === 'today') return 'today';
  if (filters.preset === '7d') return 'in the last 7 days';
  if (filters.preset === '30d') return 'in the last 30 days';
  const { since, until } = filters;
  if (since !== undefined && until !== undefined) return `from ${moment(since)} to ${moment(until)}`;
  if (since !== undefined) return `since ${moment(since)}`;
  if (until !== undefined) return `before ${moment(until)}`;
  return 'in the whole log';
}
