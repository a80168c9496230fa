// Times of the list: to the second, with the day where it is not today. Pure.

import { date } from '#ui/words/time';

const SECONDS = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** `14:05:09` of today, `3 Nov 14:05:09` of another day. */
export function moment(time: number, now: number): string {
  const [day, today] = [new Date(time), new Date(now)];
  const same = day.getFullYear() === today.getFullYear() && day.getMonth() === today.getMonth() && day.getDate() === today.getDate();
  const clock = SECONDS.format(time);
  return same ? clock : `${date(time, now)} ${clock}`;
}
