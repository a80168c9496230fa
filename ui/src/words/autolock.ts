import { span } from './time';

const USUAL = [300, 900, 1800, 3600, 4 * 3600, 8 * 3600, 24 * 3600];

/** The choices for the auto-lock: the usual ones and what is set. */
export function choices(current: number): { seconds: number; word: string }[] {
  return [...new Set([...USUAL, current])]
    .sort((a, b) => a - b)
    .map((seconds) => ({ seconds, word: span(seconds * 1000).replace(/ 00 s$/, '') }));
}
