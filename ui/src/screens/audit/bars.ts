// The histogram's numbers. Pure.

import type { Msg } from '#ui/host';
import { clock, date } from '#ui/words/time';

/** Columns for the chart: where each bar begins in seconds since 1970, and heights that lie over each other: all, refused and failed, failed. */
export type Columns = [number[], number[], number[], number[]];

/** The bars as columns. Failed ones stand at the bottom, where a few among many are still seen. */
export function columns(bars: readonly Msg<'BarMsg'>[]): Columns {
  const out: Columns = [[], [], [], []];
  for (const bar of bars) {
    const at = Date.parse(bar.at) / 1000;
    if (!Number.isFinite(at)) continue;
    out[0].push(at);
    out[1].push(bar.ok + bar.refused + bar.failed);
    out[2].push(bar.refused + bar.failed);
    out[3].push(bar.failed);
  }
  return out;
}

/** Bars for which there is room at least: those of a young log stand at the end of it. */
const BARS_MIN = 24;

/** The range that the chart shows, in seconds: what is asked for, so that empty time is seen, else what there is. */
export function extent(
  bars: readonly Msg<'BarMsg'>[],
  barSeconds: number,
  since: number | undefined,
  until: number | undefined,
  now: number,
): [number, number] {
  const first = Date.parse(bars[0]?.at ?? '') / 1000;
  const last = Date.parse(bars.at(-1)?.at ?? '') / 1000 + barSeconds;
  const end = until === undefined ? now / 1000 : until / 1000;
  const to = Math.max(Number.isFinite(last) && until === undefined ? last : -Infinity, end);
  const from = since === undefined ? Math.min(Number.isFinite(first) ? first : Infinity, to - BARS_MIN * barSeconds) : since / 1000;
  return to > from ? [from, to] : [from, from + Math.max(barSeconds, 3600)];
}

/** A brushed range in whole hours, as the bars are, in milliseconds; undefined where nothing was brushed. */
export function brushed(from: number, to: number): { since: number; until: number } | undefined {
  const [low, high] = from <= to ? [from, to] : [to, from];
  if (!(high > low)) return undefined;
  const hour = 3600;
  const since = Math.floor(low / hour) * hour;
  const until = Math.max(Math.ceil(high / hour) * hour, since + hour);
  return { since: since * 1000, until: until * 1000 };
}

/** The chart in words, for those who do not see it. */
export function spoken(summary: Pick<Msg<'AuditSummary'>, 'bars' | 'total'>, day: (time: number) => string): string {
  if (summary.total === 0 || summary.bars.length === 0) return 'No entries in this time';
  const size = (bar: Msg<'BarMsg'>): number => bar.ok + bar.refused + bar.failed;
  const busiest = summary.bars.reduce((most, bar) => (size(bar) > size(most) ? bar : most));
  const of = (pick: 'ok' | 'refused' | 'failed'): string =>
    summary.bars.reduce((sum, bar) => sum + bar[pick], 0).toLocaleString('en-GB');
  return `Entries over time: ${of('ok')} ok, ${of('refused')} refused, ${of('failed')} failed; most on ${day(Date.parse(busiest.at))}`;
}

/** When a bar begins and ends: `3 Nov 14:00–15:00`, `3 Nov 22:00 – 4 Nov 16:00`. */
export function barWords(from: number, to: number, now: number): string {
  const [first, last] = [date(from, now), date(to - 1, now)];
  if (first === last) return `${first} ${clock(from)}–${clock(to)}`;
  return `${first} ${clock(from)} – ${date(to, now)} ${clock(to)}`;
}
