// Times in words. Everything takes milliseconds since 1970 or spans in milliseconds, so that it can be tested without a clock.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Milliseconds of an RFC 3339 time; NaN for what is none. */
export function at(time: string): number {
  return Date.parse(time);
}

/**
 * A span in at most two units, rounded down so that time left is never overstated: `9 s`, `4 min 05 s` (below ten minutes),
 * `12 min`, `1 h 12 min`, `24 h`, `3 d 4 h` (from two days on).
 */
export function span(ms: number): string {
  if (!Number.isFinite(ms)) return 'unknown';
  const left = Math.max(0, ms);
  if (left < MINUTE) return `${Math.floor(left / SECOND)} s`;
  if (left < 10 * MINUTE) {
    return `${Math.floor(left / MINUTE)} min ${String(Math.floor((left % MINUTE) / SECOND)).padStart(2, '0')} s`;
  }
  if (left < HOUR) return `${Math.floor(left / MINUTE)} min`;
  if (left < 2 * DAY) {
    const minutes = Math.floor((left % HOUR) / MINUTE);
    return minutes ? `${Math.floor(left / HOUR)} h ${minutes} min` : `${Math.floor(left / HOUR)} h`;
  }
  const hours = Math.floor((left % DAY) / HOUR);
  return hours ? `${Math.floor(left / DAY)} d ${hours} h` : `${Math.floor(left / DAY)} d`;
}

/** A span in whole minutes or more, for voices: changes once a minute at most. */
export function coarseSpan(ms: number): string {
  const left = Math.max(0, ms);
  if (left < MINUTE) return 'less than a minute';
  const minutes = Math.floor(left / MINUTE);
  if (minutes < 60) return minutes === 1 ? '1 minute' : `${minutes} minutes`;
  const hours = Math.floor(minutes / 60);
  return hours === 1 ? '1 hour' : `${hours} hours`;
}

/** How long ago: `just now`, `4 min ago`, `2 h ago`, `3 d ago`; beyond a week the date. */
export function ago(time: number, now: number): string {
  if (!Number.isFinite(time)) return 'unknown';
  const past = now - time;
  if (past < -MINUTE) return `in ${short(-past)}`;
  if (past < 5 * SECOND) return 'just now';
  if (past < 7 * DAY) return `${short(past)} ago`;
  return date(time, now);
}

/** A span in one unit: `40 s`, `4 min`, `2 h`, `3 d`. */
export function short(ms: number): string {
  if (!Number.isFinite(ms)) return 'unknown';
  const left = Math.max(0, ms);
  if (left < MINUTE) return `${Math.floor(left / SECOND)} s`;
  if (left < HOUR) return `${Math.floor(left / MINUTE)} min`;
  if (left < DAY) return `${Math.floor(left / HOUR)} h`;
  return `${Math.floor(left / DAY)} d`;
}

/** The day: `3 Nov`, with the year where it is another one. */
export function date(time: number, now: number): string {
  if (!Number.isFinite(time)) return 'unknown';
  const sameYear = new Date(time).getFullYear() === new Date(now).getFullYear();
  return new Intl.DateTimeFormat('en-GB', {
    day: 'numeric',
    month: 'short',
    ...(sameYear ? {} : { year: 'numeric' }),
  }).format(time);
}

const EXACT = new Intl.DateTimeFormat('en-GB', {
  weekday: 'short',
  day: 'numeric',
  month: 'short',
  year: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  timeZoneName: 'short',
});

/** The exact time in the time zone of the person. */
export function exact(time: number): string {
  return Number.isFinite(time) ? EXACT.format(time) : 'unknown';
}

const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });

/** The time of day, with the day where that is another one: `14:05`, `tomorrow 14:05`, `3 Nov 14:05`. */
export function hours(time: number, now: number): string {
  if (!Number.isFinite(time)) return 'unknown';
  const day = (ahead: number): string => {
    const other = new Date(now);
    other.setDate(other.getDate() + ahead);
    return other.toDateString();
  };
  const names: Readonly<Record<string, string>> = { [day(0)]: '', [day(1)]: 'tomorrow ', [day(-1)]: 'yesterday ' };
  return `${names[new Date(time).toDateString()] ?? `${date(time, now)} `}${clock(time)}`;
}

/** Hours and minutes: `14:05`. */
export function clock(time: number): string {
  return Number.isFinite(time) ? CLOCK.format(time) : 'unknown';
}
