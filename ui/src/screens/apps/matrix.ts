// Which app had what of which profile, as a table. Pure.

import type { Msg } from '#ui/host';

/** A cell, row or column of the table. */
export interface Cell {
  /** Deliveries. */
  held: number;
  /** Uses that Keyward saw. */
  used: number;
  /** Something was delivered in a way that hides its uses. */
  unseen: boolean;
  /** Leases that are live at this moment. */
  live: number;
  /** First and last delivery or seen use, in milliseconds since 1970; NaN where there is none. */
  first: number;
  last: number;
  heldSpan?: Msg<'SpanMsg'>;
  usedSpan?: Msg<'SpanMsg'>;
}

/** The table. Rows and columns in the order in which they are shown: last touched first. */
export interface Matrix {
  apps: string[];
  profiles: string[];
  cell: (app: string, profile: string) => Cell | undefined;
  ofApp: (app: string) => Cell;
  ofProfile: (profile: string) => Cell;
  total: Cell;
}

const NOTHING: Cell = { held: 0, used: 0, unseen: false, live: 0, first: NaN, last: NaN };

/** Makes the table of what the broker answers; `needle` keeps the apps and profiles whose names hold it, if any does. */
export function matrix(uses: readonly Msg<'AppUseMsg'>[], needle = ''): Matrix {
  const found = needle.trim().toLocaleLowerCase();
  const kept = uses.filter((use) => `${use.app}\n${use.profile}`.toLocaleLowerCase().includes(found));
  const cells = new Map<string, Map<string, Cell>>();
  const rows = new Map<string, Cell>();
  const columns = new Map<string, Cell>();
  let total = NOTHING;
  for (const use of kept) {
    const cell = cellOf(use);
    const row = cells.get(use.app) ?? new Map<string, Cell>();
    row.set(use.profile, sum(row.get(use.profile) ?? NOTHING, cell));
    cells.set(use.app, row);
    rows.set(use.app, sum(rows.get(use.app) ?? NOTHING, cell));
    columns.set(use.profile, sum(columns.get(use.profile) ?? NOTHING, cell));
    total = sum(total, cell);
  }
  return {
    apps: ordered(rows),
    profiles: ordered(columns),
    cell: (app, profile) => cells.get(app)?.get(profile),
    ofApp: (app) => rows.get(app) ?? NOTHING,
    ofProfile: (profile) => columns.get(profile) ?? NOTHING,
    total,
  };
}

function cellOf(use: Msg<'AppUseMsg'>): Cell {
  const held = use.held ?? undefined;
  const used = use.used ?? undefined;
  const times = (pick: 'first_at' | 'last_at'): number[] =>
    [held, used].flatMap((span) => (span ? [Date.parse(span[pick])] : [])).filter(Number.isFinite);
  return {
    held: held?.count ?? 0,
    used: used?.count ?? 0,
    unseen: use.unseen,
    live: use.live,
    first: least(times('first_at')),
    last: greatest(times('last_at')),
    ...(held ? { heldSpan: held } : {}),
    ...(used ? { usedSpan: used } : {}),
  };
}

const least = (times: number[]): number => (times.length ? Math.min(...times) : NaN);
const greatest = (times: number[]): number => (times.length ? Math.max(...times) : NaN);

function sum(a: Cell, b: Cell): Cell {
  return {
    held: a.held + b.held,
    used: a.used + b.used,
    unseen: a.unseen || b.unseen,
    live: a.live + b.live,
    first: least([a.first, b.first].filter(Number.isFinite)),
    last: greatest([a.last, b.last].filter(Number.isFinite)),
    heldSpan: b.heldSpan ?? a.heldSpan,
    usedSpan: b.usedSpan ?? a.usedSpan,
  };
}

/** Live ones first, then the last touched. */
function ordered(cells: Map<string, Cell>): string[] {
  const key = (cell: Cell): number => (Number.isFinite(cell.last) ? cell.last : 0);
  return [...cells]
    .sort(([an, a], [bn, b]) => Number(b.live > 0) - Number(a.live > 0) || key(b) - key(a) || (an < bn ? -1 : 1))
    .map(([name]) => name);
}

/**
 * What is known of use, in words: a count where each use goes through Keyward, else that it cannot be seen. Never "0" for what
 * cannot be seen.
 */
export function usedWords(cell: Cell): string {
  if (cell.used > 0) {
    const seen = `${cell.used.toLocaleString('en-GB')}×`;
    return cell.unseen ? `${seen} seen` : seen;
  }
  if (cell.unseen) return 'cannot be seen';
  return cell.held > 0 ? 'never' : 'no';
}

/** All that was given is a way through the gateway: the app never held the credential, and each use is counted. */
export function viaGateway(cell: Cell): boolean {
  return cell.held > 0 && !cell.unseen;
}

/** The shortest answer about one app and one profile in a range of time, for the head of the review. */
export function answer(app: string, profile: string, cell: Cell | undefined, range: string): string {
  const held = cell?.held ?? 0;
  const used = cell?.used ?? 0;
  if (held === 0 && used === 0) return `No: ${app} was not given ${profile} ${range}.`;
  const times = (n: number): string => (n === 1 ? 'once' : n === 2 ? 'twice' : `${n.toLocaleString('en-GB')} times`);
  const parts: string[] = [];
  if (held > 0) parts.push(`was given ${profile} ${times(held)}`);
  if (used > 0) parts.push(`${held > 0 ? 'used it' : `used ${profile}`} ${times(used)}`);
  const unseen = cell?.unseen && used === 0 ? ' What it did with it cannot be seen.' : '';
  return `Yes: ${app} ${parts.join(' and ')} ${range}.${unseen}`;
}
